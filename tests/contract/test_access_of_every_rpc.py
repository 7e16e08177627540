"""Every RPC of the API against every way not to be allowed. Complete by construction: an RPC without a row fails.

The services of a store node are served by a real one, with files and rules; those of ingest, syncd and between
processes by servicers that answer everything, behind the same stages.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from joserfc import jwt

from relayfile.auth import (
    ALL,
    EVERY_SCOPE,
    REQUIREMENTS,
    KeyStore,
    Reach,
    Requirement,
    TokenSigner,
    TokenVerifier,
    auth_stage,
)
from relayfile.auth.tokens import _REGISTRY
from relayfile.clock import ManualClock, SystemClock
from relayfile.errors import FileNotFound, PermissionDenied, RelayfileError, ServedLater, Unauthenticated
from relayfile.ids import IdSource
from relayfile.interception import CallInterceptor, maker_like
from relayfile.status import error_stage, from_rpc_error
from relayfile.v1 import (
    admin_pb2,
    dead_letter_pb2,
    event_pb2,
    file_pb2,
    ingest_pb2,
    mirror_pb2,
    route_pb2,
    shard_pb2,
    topology_pb2,
    types_pb2,
    workspace_pb2,
    writeback_pb2,
)  # fmt: skip
from tests.support.store_node import TestNode, started_nodes

W, OTHER = "acme", "other"
FILES = [
    admin_pb2, dead_letter_pb2, event_pb2, file_pb2, ingest_pb2, mirror_pb2, route_pb2, shard_pb2, topology_pb2,
    workspace_pb2, writeback_pb2,
]  # fmt: skip
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
ELSEWHERE = {"IngestService", "MirrorService", "ShardService"}
"""Not on a store node of the tests."""
INSIDE, OUTSIDE, DENIED = "/in/file", "/out/file", "/denied/file"
CONTENTS = {INSIDE: b"what is inside", OUTSIDE: b"what is outside", DENIED: b"what is denied"}
MARK = "known-only-to-readers"
NARROW_PATH = "/in/**"
RESOURCES = ("fs", "ops", "sync", "admin", "topology", "mirror")
ACTIONS = ("read", "write", "manage", "trigger", "replay")

WITHOUT_RULES = ("/CreateWorkspace", "/DeleteWorkspace", "/Backup")
"""They are about a workspace or a node as a whole: whoever may copy a node reads all of it, rules included."""

Fill: TypeAlias = Callable[[Any, str], None]


def nothing(_request: Any, _path: str) -> None:
    """What the table of requirements names is all that the request needs."""


def sets(**fields: object) -> Fill:
    """Fields; `{}` in a text is the path."""

    def fill(request: Any, path: str) -> None:
        for name, value in fields.items():
            *way, last = name.split("__")
            into = request
            for step in way:
                into = getattr(into, step)
            if isinstance(value, list):
                getattr(into, last).extend(each.format(path) for each in value)
            else:
                setattr(into, last, value.format(path) if isinstance(value, str) else value)

    return fill


def items(request: Any, path: str) -> None:
    request.items.add(write=file_pb2.WriteItem(path=path, content=b"new"))
    request.items.add(delete=file_pb2.DeleteItem(path=path))
    request.items.add(move=file_pb2.MoveItem(path=path, to_path=path + "-moved"))


def in_service(service: str, rows: Mapping[str, Fill]) -> dict[str, Fill]:
    return {f"/relayfile.v1.{service}/{name}": fill for names, fill in rows.items() for name in names.split()}


ROWS: dict[str, Fill] = {
    **in_service(
        "FileService",
        {
            "ListTree GetFile ReadFile QueryFiles": nothing,
            "BatchGetFiles ReadFiles": sets(paths=["{}", INSIDE]),
            "GetTreeDigest": sets(children=True, partial=True),
            "ExportTree": sets(have_complete=True),
            "WriteFile": sets(content=b"new", force=True),
            "DeleteFile": sets(force=True),
            "MoveFile": sets(to_path="{}-moved", force=True),
            "WriteFiles": items,
            "UploadFile": sets(head__force=True, size_bytes=3, chunk__data=b"new", chunk__last=True),
        },
    ),
    **in_service("EventService", {"ListEvents": nothing, "WatchEvents": sets(partial_digests=True)}),
    **in_service(
        "WorkspaceService",
        {"CreateWorkspace GetWorkspace ListWorkspaces": nothing, "DeleteWorkspace": nothing},
    ),
    **in_service(
        "DeadLetterService",
        {
            "ListDeadLetters": nothing,
            "GetDeadLetter ReadDeadLetter AcknowledgeDeadLetter": sets(dead_letter_id="letter"),
            "ReplayDeadLetters": sets(dead_letter_ids=["letter"]),
        },
    ),
    **in_service(
        "WritebackService",
        {
            "ListOperations WatchOperations ApproveOperations CancelOperations": nothing,
            "GetOperation RenewClaim ReadOperationContent ReplayOperation": sets(operation_id="operation"),
            "ClaimOperations": nothing,
            "AckOperation": sets(head__operation_id="operation"),
        },
    ),
    **in_service(
        "RouteService",
        {"PutRoute": sets(app="app"), "DeleteRoute GetRoute": sets(app="app"), "ListRoutes": sets(app="app")},
    ),
    **in_service("TopologyService", {"GetTopology WatchTopology": nothing}),
    **in_service("AdminService", {"Audit Scrub Backup DrainNode GetConfig GetStats ListAdminActions": nothing}),
    **in_service(
        "IngestService",
        {"PublishEnvelope PublishEnvelopes GetIngestStatus ListRejectedRequests Pause Resume": nothing},
    ),
    **in_service("ShardService", {"ApplyEnvelopes FinishRedo SetPause GetOutcomes": nothing}),
    **in_service(
        "MirrorService",
        {
            "CreateMirror ListMirrors GetMirror ListConflicts ListProblems ListTrash WaitMirror WatchMirrors": nothing,
            "DeleteMirror PullMirror AuditMirror FlushMirror ResolveConflict RestoreTrash ApproveDeletes": nothing,
        },
    ),
}


def test_every_rpc_has_a_row() -> None:
    assert ROWS.keys() == METHODS.keys() == REQUIREMENTS.keys()


def put(request: Any, field: str, value: str) -> None:
    *way, last = field.split(".")
    for step in way:
        request = getattr(request, step)
    setattr(request, last, value)


def request_for(method: str, path: str, workspace: str = W) -> Any:
    """A request about the file at `path`, or the directory that it is in."""
    requirement = REQUIREMENTS[method]
    request = message_factory.GetMessageClass(METHODS[method].input_type)()
    if requirement.reach in {Reach.WORKSPACE, Reach.WORKSPACE_OR_CLUSTER}:
        put(request, requirement.workspace_field, workspace)
    for field in requirement.path_fields:
        put(request, field, path)
    if requirement.tree_field:
        put(request, requirement.tree_field, path.rsplit("/", 1)[0])
    ROWS[method](request, path)
    return request


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended."""

    error: RelayfileError | None
    messages: list[bytes]

    @property
    def is_refused(self) -> bool:
        return isinstance(self.error, PermissionDenied)

    def tells_of(self, path: str) -> bool:
        """Whether anything of the file itself is in it."""
        content = CONTENTS[path]
        return any(part in message for message in self.messages for part in (content, sha256(content).digest()))


@dataclass(frozen=True, slots=True)
class Room:
    """A node, the stand-ins for other processes, and one key for all."""

    node: TestNode
    elsewhere: grpc.aio.Channel
    keys: KeyStore

    def token(
        self, *scopes: str, workspaces: str | tuple[str, ...] = W, subject: str = "test", service: str = ""
    ) -> str:
        return self.node.signer.mint(subject, workspaces=workspaces, ttl_s=60, scopes=scopes, service=service)

    async def call(self, method: str, token: str | None, path: str = INSIDE, request: Any = None) -> Answer:
        """Call, and read the answer for a moment."""
        rpc = METHODS[method]
        at = self.elsewhere if rpc.containing_service.name in ELSEWHERE else self.node.client.channel
        message = request_for(method, path) if request is None else request

        async def requests() -> AsyncIterator[bytes]:
            yield message.SerializeToString()

        sent: Any = requests() if rpc.client_streaming else message.SerializeToString()
        arity = ("stream_" if rpc.client_streaming else "unary_") + ("stream" if rpc.server_streaming else "unary")
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        call = getattr(at, arity)(method)(sent, metadata=metadata, timeout=10)
        answers: list[bytes] = []
        try:
            if rpc.server_streaming:
                async with asyncio.timeout(0.5):
                    async for answer in call:
                        answers += [answer]
            else:
                answers.append(await call)
        except TimeoutError:
            call.cancel()  # a stream that follows something
        except grpc.aio.AioRpcError as error:
            return Answer(from_rpc_error(error), answers)
        return Answer(None, answers)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with started_nodes(tmp_path) as [node], elsewhere(KeyStore(tmp_path / "keys")) as channel:
        for workspace in (W, OTHER):
            await node.writer.create_workspace(workspace)
        request = file_pb2.WriteFilesRequest(workspace_id=W)
        for path, content in CONTENTS.items():
            rules = ["deny:agent:denied", "public"] if path == DENIED else []
            semantics = types_pb2.Semantics(permissions=rules, comments=[MARK])
            request.items.add(write=file_pb2.WriteItem(path=path, content=content, semantics=semantics))
        await node.client.files.WriteFiles(request, metadata=node.client.metadata)
        yield Room(node, channel, KeyStore(tmp_path / "keys"))


@asynccontextmanager
async def elsewhere(keys: KeyStore) -> AsyncIterator[grpc.aio.Channel]:
    """Servicers that answer every request with nothing, once it passed the stages."""
    clock = SystemClock()
    stages = (error_stage, auth_stage(TokenVerifier(keys.public_file, clock)))
    interceptor = CallInterceptor(stages, IdSource(clock).new_id, frozenset())
    server = grpc.aio.server(interceptors=[interceptor], options=(("grpc.so_reuseport", 0),))
    for name in ELSEWHERE:
        rpcs = [rpc for rpc in METHODS.values() if rpc.containing_service.name == name]
        handlers = {rpc.name: _answering(rpc) for rpc in rpcs}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"relayfile.v1.{name}", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


def _answering(rpc: MethodDescriptor) -> Any:
    empty = message_factory.GetMessageClass(rpc.output_type)()

    async def one(request: Any, _context: Any) -> Any:
        if rpc.client_streaming:
            async for _ in request:
                pass
        return empty

    async def many(request: Any, context: Any) -> AsyncIterator[Any]:
        yield await one(request, context)

    kind: Any = grpc.RpcMethodHandler()
    kind.request_streaming, kind.response_streaming = rpc.client_streaming, rpc.server_streaming
    return maker_like(kind)(
        many if rpc.server_streaming else one,
        request_deserializer=message_factory.GetMessageClass(rpc.input_type).FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def all_but(action: str) -> tuple[str, ...]:
    """Every scope that does not grant `action`."""
    return tuple(
        f"{plane}{resource}:{verb}"
        for plane in ("relayfile:", "")
        for resource in RESOURCES
        for verb in ACTIONS
        if f"{resource}:{verb}" != action
        and not (verb == "manage" and action in (f"{resource}:read", f"{resource}:write"))
    )


def wanted_reach(method: str) -> dict[str, Any]:
    """What a token of the right kind has, but for its scopes."""
    match REQUIREMENTS[method].reach:
        case Reach.SERVICE:
            return {"workspaces": ALL, "service": "ingest"}
        case Reach.CLUSTER:
            return {"workspaces": ALL}
        case _:
            return {"workspaces": W}


async def test_without_a_token(room: Room) -> None:
    for method in METHODS:
        answer = await room.call(method, None)
        assert isinstance(answer.error, Unauthenticated), (method, answer)
        assert isinstance((await room.call(method, "x.y.z")).error, Unauthenticated), method


async def test_an_expired_token(room: Room) -> None:
    yesterday = ManualClock(now_us=SystemClock().now_us() - 86_400_000_000)
    token = TokenSigner(room.keys.signing_key(), yesterday).mint(
        "test", workspaces=ALL, ttl_s=3600, scopes=(EVERY_SCOPE,), service="ingest"
    )
    for method in METHODS:
        answer = await room.call(method, token)
        assert isinstance(answer.error, Unauthenticated), (method, answer)
        assert "expired" in str(answer.error)


async def test_another_audience(room: Room) -> None:
    key = room.keys.signing_key()
    claims = {"aud": "elsewhere", "sub": "test", "wks": ALL, "scopes": [EVERY_SCOPE], "svc": "ingest", "exp": 1 << 33}
    token = jwt.encode({"alg": "EdDSA", "kid": key.kid}, claims, key, registry=_REGISTRY)
    for method in METHODS:
        answer = await room.call(method, token)
        assert isinstance(answer.error, Unauthenticated), (method, answer)
        assert "audience" in str(answer.error)


async def test_another_workspace(room: Room) -> None:
    token = room.token(EVERY_SCOPE, workspaces=OTHER, service="ingest")
    for method in METHODS:
        if REQUIREMENTS[method].reach is Reach.RECORDS:
            continue  # below, where the servicers are
        answer = await room.call(method, token)
        # Of a stream of requests that nobody reads yet, no message was looked at.
        assert answer.is_refused or isinstance(answer.error, ServedLater), (method, answer)
        assert not answer.messages


def test_records_of_another_workspace_are_refused_by_their_servicers() -> None:
    """Each RPC that is about many workspaces has its own test, which this one only names."""
    named = {method.rsplit(".", 1)[1] for method, each in REQUIREMENTS.items() if each.reach is Reach.RECORDS}
    mirrors = {name for name in named if name.startswith("MirrorService/")}
    # tests/unit/ingest/publishing/test_publish_refusals.py, and tests/unit/syncd/test_servicer.py calls all that are
    # about a mirror.
    assert named - mirrors == {"IngestService/PublishEnvelopes"}


async def test_a_missing_scope(room: Room) -> None:
    for method, requirement in REQUIREMENTS.items():
        if requirement.reach is Reach.SERVICE:
            continue
        for scopes in (all_but(requirement.action), ()):
            answer = await room.call(method, room.token(*scopes, **wanted_reach(method)))
            assert answer.is_refused, (method, answer)
            assert requirement.action in str(answer.error)


async def test_the_right_scope_is_enough(room: Room) -> None:
    for method, requirement in REQUIREMENTS.items():
        for scope in (f"relayfile:{requirement.action}", requirement.action, f"*:{requirement.action}:*"):
            if method.endswith("DeleteWorkspace"):
                request = request_for(method, INSIDE, "never-made")
                token = room.token(scope, workspaces="never-made")
            else:
                request, token = None, room.token(scope, **wanted_reach(method))
            answer = await room.call(method, token, request=request)
            assert not isinstance(answer.error, PermissionDenied | Unauthenticated), (method, scope, answer)


async def test_a_narrow_scope_inside_of_its_path(room: Room) -> None:
    for method, requirement in REQUIREMENTS.items():
        if requirement.reach is Reach.SERVICE:
            continue
        token = room.token(f"relayfile:{requirement.action}:{NARROW_PATH}", **wanted_reach(method))
        answer = await room.call(method, token)
        assert answer.is_refused is not requirement.takes_narrow_scopes, (method, answer)
        assert not answer.tells_of(OUTSIDE), method
        assert not answer.tells_of(DENIED), method


async def test_a_narrow_scope_outside_of_its_path(room: Room) -> None:
    for method, requirement in REQUIREMENTS.items():
        if requirement.reach is Reach.SERVICE:
            continue
        token = room.token(f"relayfile:{requirement.action}:{NARROW_PATH}", **wanted_reach(method))
        answer = await room.call(method, token, OUTSIDE)
        assert not answer.tells_of(OUTSIDE), method
        if requirement.path_fields or requirement.tree_field or not requirement.is_filtered:
            assert answer.is_refused, (method, answer)
    await unharmed(room, OUTSIDE)


async def test_a_rule_that_denies(room: Room) -> None:
    for method, requirement in REQUIREMENTS.items():
        if method.endswith(WITHOUT_RULES):
            continue
        token = room.token(EVERY_SCOPE, subject="denied", **wanted_reach(method))
        answer = await room.call(method, token, DENIED)
        assert not answer.tells_of(DENIED), method
        if requirement.path_fields:
            assert isinstance(answer.error, PermissionDenied | FileNotFound | ServedLater), (method, answer)
    await unharmed(room, DENIED)


async def unharmed(room: Room, path: str) -> None:
    """Nothing that was refused had an effect."""
    request = file_pb2.ReadFileRequest(workspace_id=W, path=path)
    call = room.node.client.files.ReadFile(request, metadata=room.node.client.metadata)
    assert b"".join([message.data async for message in call]) == CONTENTS[path]


async def test_the_rows_would_see_a_leak(room: Room) -> None:
    """The answers to those who may read do tell of the file: else the tests above would prove nothing."""
    files = "ListTree GetFile BatchGetFiles ReadFile ReadFiles ExportTree QueryFiles GetTreeDigest"
    telling = [f"/relayfile.v1.FileService/{name}" for name in files.split()]
    telling += [f"/relayfile.v1.EventService/{name}" for name in ("ListEvents", "WatchEvents")]
    for method in telling:
        answer = await room.call(method, room.token(EVERY_SCOPE), INSIDE)
        assert answer.tells_of(INSIDE), (method, answer)


def test_a_requirement_names_one_way_to_its_paths() -> None:
    for method, requirement in REQUIREMENTS.items():
        ways = [bool(requirement.path_fields), bool(requirement.tree_field), requirement.is_filtered]
        assert sum(ways) <= 1, method
    assert not Requirement("fs:read").takes_narrow_scopes
