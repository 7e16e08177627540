"""What single RPCs of a store node refuse beyond what all requests of their form do: rows by RPC."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from google.protobuf.message import Message

from relayfile.v1 import file_pb2, types_pb2
from tests.support.bad_requests import BAD_PATHS, FAR, INVALID, Code, Refusal, Row, invalid, method_of, with_field
from tests.support.good_requests import APP, GOOD, ID, VARIANTS

HERE: Final = "/notes/a.txt"
MISSING: Final = Refusal(Code.NOT_FOUND, "FILE_NOT_FOUND")
NO_ROUTE: Final = Refusal(Code.NOT_FOUND, "ROUTE_NOT_FOUND")
CONFLICT: Final = Refusal(Code.ABORTED, "REVISION_CONFLICT")
TOO_LARGE: Final = Refusal(INVALID, "TOO_LARGE")
CURSOR: Final = Refusal(Code.OUT_OF_RANGE, "CURSOR_EXPIRED")
UNCONDITIONAL: Final = Refusal(Code.FAILED_PRECONDITION, "PRECONDITION_REQUIRED")
OTHER_HISTORY: Final = Refusal(Code.FAILED_PRECONDITION, "HISTORY_MISMATCH")
MANY: Final = [f"/{number}" for number in range(10_001)]
LONG: Final = types_pb2.Semantics(comments=[str(number) for number in range(1_001)])
SYSTEM: Final = f"_app/{APP}"


def at_odds(field: str) -> Refusal:
    """A path that a file or directory of the tree rules out."""
    return Refusal(INVALID, "INVALID_PATH", (field,))


Special = tuple[str, Refusal, Mapping[str, object]]
"""Name, refusal, and the fields that differ from the good request, the first of which it is about."""

_FILE: Final[Sequence[Special]] = [
    ("a directory", MISSING, {"path": "/notes"}),
    ("nothing", MISSING, {"path": "/notes/b.txt"}),
    ("below a file", MISSING, {"path": f"{HERE}/b"}),
    ("the root", invalid("path"), {"path": "/"}),
    ("two slashes", invalid("path"), {"path": "//"}),
    ("no path", invalid("path"), {"path": ""}),
]


def _histories(prefix: str = "") -> Sequence[Special]:
    """Of a change that may say which history its revisions are of."""
    return [
        ("of another history", OTHER_HISTORY, {"history_id": "1" * 32}),
        ("a history that is none", invalid(f"{prefix}history_id"), {"history_id": "x" * 9_999}),
    ]


def _write(prefix: str) -> Sequence[Special]:
    return [
        *_histories(prefix),
        ("no condition", UNCONDITIONAL, {"force": False}),
        ("a file that must be new", CONFLICT, {"if_revision": 0, "path": HERE, "force": False}),
        ("a revision of the future", CONFLICT, {"if_revision": FAR, "path": HERE, "force": False}),
        ("of nothing", MISSING, {"if_revision": 3, "force": False}),
        ("a directory", at_odds("path"), {"path": "/notes"}),
        ("below a file", at_odds("path"), {"path": f"{HERE}/b"}),
        ("the root", invalid(f"{prefix}path"), {"path": "/"}),
        ("two slashes", invalid(f"{prefix}path"), {"path": "//"}),
        ("a system workspace", invalid(f"{prefix}workspace_id"), {"workspace_id": SYSTEM}),
        ("too many comments", invalid(f"{prefix}semantics"), {"semantics": LONG}),
    ]


_CHANGE: Final[Sequence[Special]] = [
    *_histories(),
    ("no condition", UNCONDITIONAL, {"force": False}),
    ("zero", invalid("if_revision"), {"if_revision": 0}),
    ("a revision of the future", CONFLICT, {"if_revision": FAR, "force": False}),
    ("nothing", MISSING, {"path": "/notes/c.txt"}),
    ("a directory", MISSING, {"path": "/notes"}),
    ("the root", invalid("path"), {"path": "/"}),
    ("a system workspace", invalid("workspace_id"), {"workspace_id": SYSTEM}),
]
_EVENTS: Final[Sequence[Special]] = [
    ("of another history", CURSOR, {"history_id": "0" * 32, "after_revision": 1}),
    ("too many globs", invalid("filter.path_globs"), {"filter.path_globs": MANY}),
]
_CHOSEN: Final[Sequence[Special]] = [("ids and a filter", invalid("filter"), {"operation_ids": [ID]})]
_SPECIAL: Final[Mapping[str, Sequence[Special]]] = {
    "FileService/GetFile": _FILE,
    "FileService/ReadFile": [*_FILE, ("another revision", CONFLICT, {"if_revision": FAR})],
    "FileService/BatchGetFiles": [
        ("10,001 paths", invalid("paths"), {"paths": MANY}),
        ("the root", invalid("paths[0]"), {"paths": ["/"]}),
    ],
    "FileService/ReadFiles": [("10,001 paths", invalid("paths"), {"paths": MANY})],
    "FileService/GetTreeDigest": [
        ("a bucket past the last", invalid("bucket", "children"), {"bucket": 1 << 20}),
        ("a negative bucket", invalid("bucket", "children"), {"bucket": -1}),
        ("more buckets than one that is not named", invalid("more_buckets"), {"more_buckets": [1]}),
        ("one more bucket past the last", invalid("more_buckets", "children"), {"bucket": 0, "more_buckets": [256]}),
        ("more buckets than there are", invalid("more_buckets", "children"), {"bucket": 0, "more_buckets": [1] * 257}),
    ],
    "FileService/ExportTree": [
        ("after what is elsewhere", invalid("start.after_path"), {"after_path": "/a", "path": "/notes"})
    ],
    "FileService/QueryFiles": [
        ("too many", invalid("properties"), {"properties": {str(number): "x" for number in range(2_000)}})
    ],
    "FileService/WriteFile": [*_write(""), ("over a MiB", TOO_LARGE, {"content": b"x" * ((1 << 20) + 1)})],
    "FileService/UploadFile": [*_write("head."), ("content in the head", invalid("head.content"), {"content": b"x"})],
    "FileService/WriteFiles": _histories(),
    "FileService/DeleteFile": _CHANGE,
    "FileService/MoveFile": [
        *_CHANGE,
        ("onto itself", invalid("to_path"), {"to_path": HERE}),
        ("onto a file", CONFLICT, {"to_path": "/github/issues/1.json"}),
        ("onto a directory", at_odds("to_path"), {"to_path": "/github"}),
        ("below a file", at_odds("to_path"), {"to_path": "/github/issues/1.json/x"}),
    ],
    "EventService/ListEvents": _EVENTS,
    "EventService/WatchEvents": [
        *_EVENTS,
        ("after a revision of no history", invalid("history_id"), {"after_revision": 1}),
        ("too many marks", invalid("mark_paths"), {"mark_paths": MANY}),
        ("before the first", invalid("after_revision"), {"after_revision": -2}),
    ],
    "WorkspaceService/CreateWorkspace": [
        ("a system workspace", invalid("workspace_id"), {"workspace_id": "_app/x"}),
    ],
    "WorkspaceService/DeleteWorkspace": _histories(),
    "DeadLetterService/ReplayDeadLetters": [
        ("too many", invalid("filter", "dead_letter_ids"), {"dead_letter_ids": [ID] * 10_001})
    ],
    "RouteService/PutRoute": [
        ("a route that must be new", CONFLICT, {"if_revision": 0, "tenant": "t1"}),
        ("a revision of the future", CONFLICT, {"if_revision": FAR, "tenant": "t1"}),
    ],
    "RouteService/DeleteRoute": [
        ("zero", invalid("if_revision"), {"if_revision": 0}),
        ("a revision of the future", CONFLICT, {"if_revision": FAR}),
        ("nothing", NO_ROUTE, {"tenant": "t9"}),
    ],
    "RouteService/GetRoute": [("nothing", NO_ROUTE, {"tenant": "t9"})],
    "WritebackService/ClaimOperations": [("too many providers", invalid("providers"), {"providers": ["x"] * 65})],
    "WritebackService/ApproveOperations": _CHOSEN,
    "WritebackService/CancelOperations": _CHOSEN,
    "WritebackService/AckOperation": [
        (
            "an object without a type",
            invalid("head.success.provider_object_id"),
            {"success.provider_object_id": "x"},
        ),
    ],
}


def special(rpc: str) -> Iterator[Row]:
    """What only this RPC is refused for."""
    first, *rest = GOOD[rpc]
    after = [each.SerializeToString() for each in rest]
    for name, refusal, fields in _SPECIAL.get(rpc, ()):
        made = first
        for field, value in fields.items():
            made = with_field(made, field, value)
        yield Row(name, (made.SerializeToString(), *after), refusal, next(iter(fields)))
    for field in ("dead_letter_id", "operation_id"):
        if field in method_of(rpc).input_type.fields_by_name:
            reason = f"{field.removesuffix('_id').upper()}_NOT_FOUND"
            yield Row("nothing", (first.SerializeToString(), *after), Refusal(Code.NOT_FOUND, reason), field)
    match rpc:
        case "FileService/UploadFile":
            yield from _uploads()
        case "FileService/WriteFiles":
            yield from _batches()
        case "WritebackService/AckOperation":
            yield from _acks(VARIANTS[rpc]["success.change."], VARIANTS[rpc]["failure."])


def _uploads() -> Iterator[Row]:
    """Streams that are not what their head says."""
    first = GOOD["FileService/UploadFile"][0]
    head = first.SerializeToString()

    def chunk(data: bytes, *, last: bool = False) -> bytes:
        return file_pb2.UploadFileRequest(chunk=types_pb2.ContentChunk(data=data, last=last)).SerializeToString()

    yield Row("no head", (chunk(b"x", last=True),), invalid("head"))
    yield Row("no message", (), invalid("head"))
    yield Row("less than said", (head,), invalid("size_bytes"))
    yield Row("more than said", (head, chunk(b"xy", last=True)), invalid("size_bytes"))
    yield Row("two heads", (head, head), invalid("head"))
    yield Row("after the last", (head, chunk(b"x", last=True), chunk(b"")), invalid("chunk"))
    yield Row("a chunk that cannot be decoded", (head, b"\x1a\x7f"), invalid("request"))
    large = file_pb2.UploadFileRequest.FromString(head + file_pb2.UploadFileRequest(size_bytes=FAR).SerializeToString())
    yield Row("over the limit", (large.SerializeToString(),), TOO_LARGE)


def _batches() -> Iterator[Row]:
    """WriteFiles: one bad item refuses all of them, and is named."""
    request = GOOD["FileService/WriteFiles"][0]
    good = file_pb2.WriteFilesItem(write=file_pb2.WriteItem(path="/new.txt", content=b"x"))

    def items(name: str, refusal: Refusal, *made: file_pb2.WriteFilesItem) -> Row:
        return Row(name, (with_field(request, "items", list(made)).SerializeToString(),), refusal, "items")

    def second(name: str, field: str, **made: Message | int) -> Row:
        return items(name, invalid(f"items[1]{field}"), good, file_pb2.WriteFilesItem(**made))  # type: ignore[arg-type]  # by name

    yield items("no items", invalid("items"))
    yield items("1,001 items", invalid("items"), *[good] * 1_001)
    yield items("10,000 items", invalid("items"), *[good] * 10_000)
    half = [file_pb2.WriteItem(path=f"/{number}", content=b"x" * (1 << 19)) for number in range(3)]
    yield items("over a MiB together", TOO_LARGE, *[file_pb2.WriteFilesItem(write=each) for each in half])
    yield second("nothing to do", "")
    for number, path in enumerate(BAD_PATHS):
        yield second(f"write {number}", ".write.path", write=file_pb2.WriteItem(path=path))
        yield second(f"delete {number}", ".delete.path", delete=file_pb2.DeleteItem(path=path))
        yield second(f"move {number}", ".move.to_path", move=file_pb2.MoveItem(path="/a", to_path=path))
    for revision in (-1, 0):
        delete = file_pb2.DeleteItem(path="/a")
        yield second(f"delete at {revision}", ".if_revision", delete=delete, if_revision=revision)
    yield second("too many comments", ".write.semantics", write=file_pb2.WriteItem(path="/a", semantics=LONG))


def _acks(change: Message, failure: Message) -> Iterator[Row]:
    """What a worker tells of the operation that it did, or did not."""
    for base, field, value in (
        (change, "success.change.content", b"x" * ((1 << 20) + 1)),
        (change, "success.change.semantics", LONG),
        (change, "success.change.provider_object_id", "x"),
        (failure, "failure.message", "x" * 20_000),
    ):
        sent = with_field(base, field, value).SerializeToString()
        yield Row(f"a bad {field}", (sent,), invalid(f"head.{field}"), field)
