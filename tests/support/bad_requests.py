"""Bad requests to the RPCs of a store node: rows made from the API's descriptors, and how one is sent and answered.

A row is the bytes on the wire and the exact refusal. What every request has in common (a workspace's name, paths, page
sizes and tokens, revisions, request ids, enum values, texts that are not UTF-8) comes from the fields of the request's
message, so that a field that is added has its rows, or is missed by `uncovered`.
"""

from collections.abc import AsyncGenerator, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

Code = grpc.StatusCode
INVALID: Final = Code.INVALID_ARGUMENT
ANY_REASON: Final = "*"
"""Who is first at a deadline, the node or gRPC, is a race."""
UNKNOWN_WORKSPACE: Final = "an unknown workspace"
_DEPTH_MAX: Final = 3
_LENGTH_DELIMITED: Final = 2


class Refusal(NamedTuple):
    """How a request is refused."""

    code: grpc.StatusCode
    reason: str
    fields: tuple[str, ...] = ()
    """Those that are named, in order."""


class Row(NamedTuple):
    """One bad request."""

    name: str
    sent: tuple[bytes, ...]
    """The messages; of a call without a stream, one."""
    refusal: Refusal
    field: str = ""
    """The field of the request's message that it is about; empty: none."""
    timeout_s: float = 3.0


def invalid(*fields: str) -> Refusal:
    """Wrong in these fields."""
    return Refusal(INVALID, "INVALID_ARGUMENT", fields)


PAGE_TOKEN_INVALID: Final = Refusal(INVALID, "PAGE_TOKEN_INVALID")
NO_WORKSPACE: Final = Refusal(Code.NOT_FOUND, "WORKSPACE_NOT_FOUND")
TOO_LATE: Final = Refusal(Code.DEADLINE_EXCEEDED, ANY_REASON)

BAD_WORKSPACES: Final = ("", "../up", "A b", "ä", "x" * 129, "a/b", "a\0b")
BAD_PATHS: Final = (
    "/a/../b",
    "/a//b",
    "/./a",
    "/a/..",
    "/a\0b",
    "/a\x1fb",
    "/a\x7f",
    "/a\\b",
    "/" + "x" * 1_025,
    "/" + "/".join(["x" * 1_000] * 5),
    "/" + "é" * 513,
)
FAR: Final = 1 << 62
_OF_A_NAME: Final[Mapping[str, Sequence[Any]]] = {
    "workspace_id": BAD_WORKSPACES,
    "path": BAD_PATHS,
    "to_path": BAD_PATHS,
    "after_path": BAD_PATHS,
    "canonical_path": BAD_PATHS,
    "paths": BAD_PATHS,
    "mark_paths": BAD_PATHS,
    "app": ("", "A b", "x" * 65, "../x"),
    "tenant": ("", "x" * 257),
    "dead_letter_id": ("", "x" * 65),
    "operation_id": ("", "x" * 65),
    "operation_ids": ("x" * 65,),
    "dead_letter_ids": ("x" * 65,),
    "directory_name": ("", "../up", "a/b", ".", "x" * 129),
    "worker_id": ("", "x" * 129),
    "provider_status": (-1,),
    "content_follows_bytes": (-1,),
    "path_prefix": BAD_PATHS,
    "page_token": ("x" * 20_000,),
    "request_id": ("x" * 129, "é" * 65),
    "reason": ("x" * 1_001, "é" * 501),
    "content_type": ("x" * 257, "a\nb"),
    "page_size": (-1, -(1 << 31)),
    "depth": (-1,),
    "min_revision": (-1, -(1 << 63)),
    "if_revision": (-1, -(1 << 63)),
    "after_revision": (-1,),
    "offset_bytes": (-1,),
    "limit_bytes": (-1,),
    "size_bytes": (-1,),
    "node_index": (-1, 99, (1 << 31) - 1),
    "findings_max": (-1,),
    "bytes_per_second_max": (-1,),
    "replay_count_max": (-1,),
    "top_workspaces_max": (-1,),
    "files_max": (-1,),
    "total_bytes_max": (-1,),
    "known_map_version": (-1,),
    "operation_count_max": (-1,),
    "claim_number": (-1,),
}


def method_of(rpc: str) -> MethodDescriptor:
    """``FileService/GetFile``."""
    service, _, name = rpc.partition("/")
    return descriptor_pool.Default().FindServiceByName(f"relayfile.v1.{service}").methods_by_name[name]


def head_of(message: Message) -> tuple[Message, str]:
    """(what holds the arguments of a request, its name with a dot): a stream's are in a part of its first message."""
    for name in ("head", "start"):
        if name in message.DESCRIPTOR.fields_by_name and message.HasField(name):
            return getattr(message, name), f"{name}."
    return message, ""


def with_field(good: Message, field: str, value: object) -> Message:
    """A copy with another value of one field of its head."""
    made = type(good)()
    made.CopyFrom(good)
    head, _ = head_of(made)
    *above, last = field.split(".")
    for name in above:
        head = getattr(head, name)
    descriptor = head.DESCRIPTOR.fields_by_name[last]
    if isinstance(value, dict):
        getattr(head, last).update(value)
    elif descriptor.is_repeated:
        del getattr(head, last)[:]
        getattr(head, last).extend(value if isinstance(value, list) else [value])
    elif descriptor.message_type is not None:
        getattr(head, last).CopyFrom(value)
    else:
        setattr(head, last, value)
    return made


def rows_by_field(
    rpc: str,
    good: Sequence[Message],
    *,
    may_be_empty: Container[str] = (),
    free: Container[str] = (),
    variants: Mapping[str, Message] = {},
) -> Iterator[Row]:
    """What every request of this form is refused for.

    ``may_be_empty``: fields that may be left empty, or be -1, for what that means; ``free``: fields of which every
    value is fine. ``variants``: the good request for the fields below a prefix, where what is around them matters.
    """
    first, *rest = good
    after = tuple(each.SerializeToString() for each in rest)
    data = first.SerializeToString()
    for name, broken in (
        ("garbage", b"\xff\xff\xff"),
        ("cut off", data[:-1] if len(data) > 1 else b"\x0a"),
        ("two in one", data + b"\x0a\x7f"),
    ):
        yield Row(name, (broken, *after), invalid("request"))
    for chain, field in _texts(method_of(rpc).input_type):
        yield Row(f"{field} is not UTF-8", (data + _nested(chain, b"\xff\xfe"), *after), invalid("request"), field)
    head, prefix = head_of(first)
    for path, descriptor in _fields(_described(head), ""):
        if path in free:
            continue
        told = prefix + path + ("[0]" if descriptor.is_repeated else "")
        for number, value in enumerate(_bad_values(descriptor)):
            if path in may_be_empty and value in ("", -1):
                continue
            base = next((each for above, each in variants.items() if path.startswith(above)), first)
            sent = with_field(base, path, value).SerializeToString()
            yield Row(f"{path} {number}", (sent, *after), invalid(told), path)
    if "min_revision" in head.DESCRIPTOR.fields_by_name:
        sent = with_field(first, "min_revision", FAR).SerializeToString()
        yield Row("a revision of the future", (sent, *after), TOO_LATE, "min_revision", 0.05)
    if "page_token" in head.DESCRIPTOR.fields_by_name:
        for token in ("x", "AAAA", "é", "=" * 24):
            sent = with_field(first, "page_token", token).SerializeToString()
            yield Row(f"page_token {token!r}", (sent, *after), PAGE_TOKEN_INVALID, "page_token")
    if "workspace_id" in head.DESCRIPTOR.fields_by_name and UNKNOWN_WORKSPACE not in free:
        sent = with_field(first, "workspace_id", "nobody-made-this").SerializeToString()
        yield Row(UNKNOWN_WORKSPACE, (sent, *after), NO_WORKSPACE, "workspace_id")


def _bad_values(field: FieldDescriptor) -> Sequence[Any]:
    if field.enum_type is not None:
        return (99, -1)
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Timestamp":
            made = message_factory.GetMessageClass(field.message_type)
            return (made(seconds=-1), made(seconds=1 << 60), made(nanos=-1), made(nanos=1_000_000_000))
        if field.message_type.full_name == "google.protobuf.Duration":
            made = message_factory.GetMessageClass(field.message_type)
            return (made(seconds=-1), made(seconds=1 << 60), made(seconds=1, nanos=-1))
        return ()
    return _OF_A_NAME.get(field.name, ()) if field.type != FieldDescriptor.TYPE_BYTES else ()


def _described(message: Message) -> Descriptor:
    return descriptor_pool.Default().FindMessageTypeByName(message.DESCRIPTOR.full_name)


def _fields(message: Descriptor, above: str) -> Iterator[tuple[str, FieldDescriptor]]:
    """(dotted name, field) of a request, into its filters but not into lists of messages and maps."""
    for field in message.fields:
        yield above + field.name, field
        inner = field.message_type
        if (
            inner is not None
            and above.count(".") < 2
            and not field.is_repeated
            and not inner.full_name.startswith("google.")
        ):
            yield from _fields(inner, f"{above}{field.name}.")


def _texts(message: Descriptor, chain: tuple[int, ...] = (), above: str = "") -> Iterator[tuple[tuple[int, ...], str]]:
    """(field numbers from the outside in, dotted name) of every string of a request."""
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield (*chain, field.number), above + field.name
        elif field.message_type is not None and len(chain) < _DEPTH_MAX:
            yield from _texts(field.message_type, (*chain, field.number), f"{above}{field.name}.")


def _nested(chain: Sequence[int], data: bytes) -> bytes:
    for number in reversed(chain):
        data = _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(data)) + data
    return data


def _varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


def uncovered(rpc: str, rows: Iterable[Row], good: Message, free: Iterable[str]) -> list[str]:
    """The fields that no row is about, and of which not every value is said to be fine."""
    head, _ = head_of(good)
    covered = {row.field for row in rows if not row.name.endswith("is not UTF-8")} | set(free)
    return [
        path
        for path, field in _fields(_described(head), "")
        if covered.isdisjoint(_and_above(path))
        and field.type != FieldDescriptor.TYPE_BOOL
        and not any(each.startswith(f"{path}.") for each in covered)
    ]


def _and_above(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


async def answer(channel: grpc.aio.Channel, metadata: Any, rpc: str, row: Row) -> Refusal | None:
    """How the row is refused; None: it is not."""
    try:
        async for _ in answers(channel, metadata, rpc, row.sent, row.timeout_s):
            pass
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    return None


async def answers(
    channel: grpc.aio.Channel, metadata: Any, rpc: str, sent: Sequence[bytes], timeout_s: float
) -> AsyncGenerator[bytes, None]:
    """The messages with which ``sent`` is answered."""
    method = method_of(rpc)
    arity = ("stream_" if method.client_streaming else "unary_") + ("stream" if method.server_streaming else "unary")
    path = f"/{method.containing_service.full_name}/{method.name}"
    request: Any = iter(sent) if method.client_streaming else sent[0]
    call = getattr(channel, arity)(path)(request, metadata=metadata, timeout=timeout_s)
    if method.server_streaming:
        async for message in call:
            yield message
    else:
        yield await call


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """Code, reason and fields, from the details that every status of ours has."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # what it reads, it has
    reason, fields = "", []
    for detail in status.details if status is not None else ():
        info, problems = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(problems):
            fields = [each.field for each in problems.field_violations]
    return Refusal(error.code(), reason, tuple(fields))
