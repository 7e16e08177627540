"""One hop to the owner (D12): a call about a workspace that another node owns is passed on, as bytes, once.

Owns the decision where a call is served and the passing of messages of any RPC of any arity; it knows no RPC. What is
passed on: credentials, correlation id, trace context, the deadline, and a mark, with which no call is passed on twice.
A caller that follows the shard map says `relayfile-routing: direct` and learns the owner instead (`NotOwner`). Requests
are routed after the call's own checks (token, workspace claim). One whose workspace is missing or malformed stays here:
its servicer says what is wrong with it.
"""

from __future__ import annotations  # gRPC's classes are generic in their stubs only

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio

from relayfile.auth.requirements import REQUIREMENTS, Reach
from relayfile.errors import NotOwner, ProxyLoop
from relayfile.interception import CORRELATION_KEY, behaviour_of, current_call, is_served, maker_like
from relayfile.placement import app_workspace, check_any_workspace_id
from relayfile.store.ownership import Local, Owner, StaticPlacement

if TYPE_CHECKING:
    from relayfile.interception import Context, Handler

PROXIED_KEY = "relayfile-proxied"
ROUTING_KEY = "relayfile-routing"
DIRECT = "direct"
NODE_METHODS = frozenset(
    f"/relayfile.v1.AdminService/{name}" for name in ("Audit", "Scrub", "Backup", "DrainNode", "GetConfig")
)
"""Calls about a node, which `node_index` names; those about a workspace go to its owner."""
NO_SHARD = -1
PASSED_ON = ("authorization", "tracestate")


class Owners(Protocol):
    """Knows where workspaces are served."""

    def owner_of(self, workspace_id: str) -> Owner:
        """The owner as this node knows it."""
        ...

    @property
    def placement(self) -> StaticPlacement:
        """The nodes."""
        ...


class Peers:
    """Channels to other nodes, one each, made when first needed and closed together."""

    def __init__(self, open_channel: Callable[[str], grpc.aio.Channel]) -> None:
        self._open_channel = open_channel
        self._channels: dict[str, grpc.aio.Channel] = {}

    def channel(self, address: str) -> grpc.aio.Channel:
        """The channel to the node at `address`."""
        found = self._channels.get(address)
        if found is None:
            found = self._channels[address] = self._open_channel(address)
        return found

    async def close(self) -> None:
        """End every channel, and with them what is still passed on."""
        async with AsyncExitStack() as stack:
            for channel in self._channels.values():
                stack.push_async_callback(channel.close)
        self._channels.clear()


class OwnerRouting(grpc.aio.ServerInterceptor):
    """Comes after the interceptor of calls: wraps the handlers of RPCs whose requests name a workspace."""

    def __init__(self, owners: Owners, peers: Peers) -> None:
        self._owners = owners
        self._peers = peers

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        requirement = REQUIREMENTS.get(handler_call_details.method)
        if handler is None or requirement is None:
            return handler
        if requirement.app_field:
            remote_of = self._owner_finder(_system_workspace(attrgetter(requirement.app_field)))
        elif handler_call_details.method in NODE_METHODS:
            remote_of = self._named_node
        elif requirement.reach in (Reach.WORKSPACE, Reach.WORKSPACE_OR_CLUSTER):
            remote_of = self._owner_finder(attrgetter(requirement.workspace_field))
        else:
            return handler
        return self._routed(handler_call_details.method, handler, remote_of)

    def _routed(self, method: str, handler: Handler, remote_of: Callable[[Any], str | None]) -> Handler:
        serve = behaviour_of(handler)
        if serve is None or not is_served(serve):
            return handler

        async def route(request: Any, context: Context) -> Any:
            requests: Sequence[Any] | AsyncIterator[Any]
            if handler.request_streaming:
                incoming = aiter(request)
                first = await anext(incoming, None)
                requests = _again(first, incoming)
                address = None if first is None else remote_of(first)
            else:
                requests = (request,)
                address = remote_of(request)
            if address is None:
                return await _here(serve, handler, requests if handler.request_streaming else request, context)
            return await self._pass_on(method, handler, address, requests, context)

        return maker_like(handler)(
            route,
            request_deserializer=handler.request_deserializer,
            response_serializer=_either(handler.response_serializer),
        )

    def _owner_finder(self, workspace_of: Callable[[Any], str]) -> Callable[[Any], str | None]:
        return lambda request: self._remote(workspace_of(request))

    def _named_node(self, request: Any) -> str | None:
        """The address of the other node that a call is about: the owner of its workspace, else the one it names."""
        if getattr(request, "workspace_id", ""):
            return self._remote(request.workspace_id)
        placement = self._owners.placement
        if not request.HasField("node_index") or request.node_index == placement.node_index:
            return None
        if not 0 <= request.node_index < len(placement.addresses):
            return None  # its servicer refuses it
        if PROXIED_KEY in current_call().metadata:
            raise ProxyLoop(shard=NO_SHARD)
        address: str = placement.addresses[request.node_index]
        return address

    def _remote(self, workspace_id: str) -> str | None:
        """The address of the other node that serves the workspace; None when the call belongs here."""
        if not workspace_id or check_any_workspace_id(workspace_id) is not None:
            return None
        owner = self._owners.owner_of(workspace_id)
        if isinstance(owner, Local):
            return None
        metadata = current_call().metadata
        if PROXIED_KEY in metadata:
            raise ProxyLoop(shard=owner.key.shard_id)
        if metadata.get(ROUTING_KEY) == DIRECT:
            raise NotOwner(shard=owner.key.shard_id, epoch=owner.epoch, address=owner.address)
        return owner.address

    async def _pass_on(
        self,
        method: str,
        handler: Handler,
        address: str,
        requests: Sequence[Any] | AsyncIterator[Any],
        context: Context,
    ) -> bytes | None:
        channel = self._peers.channel(address)
        options: dict[str, Any] = {"metadata": passed_on(), "timeout": context.time_remaining()}
        if handler.request_streaming:
            sent: Any = _serialised(requests)
        else:
            assert isinstance(requests, Sequence)
            sent = requests[0].SerializeToString()
        match (handler.request_streaming, handler.response_streaming):
            case (False, False):
                unary: bytes = await channel.unary_unary(method)(sent, **options)
                return unary
            case (True, False):
                collected: bytes = await channel.stream_unary(method)(sent, **options)
                return collected
            case (False, True):
                call: Any = channel.unary_stream(method)(sent, **options)
            case _:
                call = channel.stream_stream(method)(sent, **options)
        try:
            async for message in call:
                await context.write(message)
        finally:
            call.cancel()  # nothing happens when it has ended
        return None


def _system_workspace(app_of: Callable[[Any], str]) -> Callable[[Any], str]:
    def workspace_of(request: Any) -> str:
        return app_workspace(app_of(request))

    return workspace_of


async def _here(serve: Callable[[Any, Any], Any], handler: Handler, request: Any, context: Context) -> Any:
    source = serve(request, context)
    if inspect.isawaitable(source):
        return await source
    try:
        async for message in source:
            await context.write(message)
    finally:
        await source.aclose()
    return None


async def _again(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    if first is not None:
        yield first
        async for request in rest:
            yield request


async def _serialised(requests: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.SerializeToString()


def passed_on() -> tuple[tuple[str, str | bytes], ...]:
    """The metadata of the call that is being served, for another node, with the mark."""
    call = current_call()
    passed = tuple((key, call.metadata[key]) for key in PASSED_ON if key in call.metadata)
    if call.traceparent:
        passed = (*passed, ("traceparent", call.traceparent))  # decided here, once
    return (*passed, (CORRELATION_KEY, call.correlation_id), (PROXIED_KEY, "1"))


def _either(serialise: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
    """Answers of our own are messages, those of the owner are bytes already."""
    assert serialise is not None

    def serialised(answer: Any) -> bytes:
        return answer if isinstance(answer, bytes) else serialise(answer)

    return serialised
