"""A client of a running system: one channel to any store node, which passes calls on to the owner of a workspace."""

from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from relayfile.client.calls import Calls, ClientLimits
from relayfile.client.events import Events
from relayfile.client.files import Files
from relayfile.client.operations import Operations
from relayfile.client.recommended import channel_arguments
from relayfile.client.token import FixedToken, TokenSource
from relayfile.client.workspaces import Workspaces
from relayfile.clock import SystemClock
from relayfile.ids import IdSource

DEFAULT_LIMITS = ClientLimits()


@dataclass(frozen=True, slots=True)
class Workspace:
    """One workspace, by what is done with it."""

    workspace_id: str
    files: Files
    events: Events
    operations: Operations


class Client:
    """Use it as `async with`, in the loop that uses it.

    `address` is `host:port` of any store node. `token` is one, or a source of fresh ones such as `TokenFile`; empty for
    a system without access checks. `tls` gives credentials of gRPC's own (`grpc.ssl_channel_credentials`); without
    them the connection is not encrypted.
    """

    def __init__(
        self,
        address: str,
        token: str | TokenSource = "",
        *,
        tls: grpc.ChannelCredentials | None = None,
        limits: ClientLimits = DEFAULT_LIMITS,
    ) -> None:
        if tls is None:
            self._channel = grpc.aio.insecure_channel(address, options=channel_arguments())
        else:
            self._channel = grpc.aio.secure_channel(address, tls, options=channel_arguments())
        self._calls = Calls(FixedToken(token) if isinstance(token, str) else token, limits)
        self._new_id = IdSource(SystemClock()).new_id
        self.workspaces = Workspaces(self._calls, self._channel, self._new_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def workspace(self, workspace_id: str) -> Workspace:
        """What is done with one workspace. Asks nothing: whether it exists, the first call tells."""
        return Workspace(
            workspace_id,
            Files(self._calls, self._channel, workspace_id, self._new_id),
            Events(self._calls, self._channel, workspace_id),
            Operations(self._calls, self._channel, workspace_id, self._new_id),
        )

    async def close(self) -> None:
        """End every call and the connection."""
        await self._channel.close()
