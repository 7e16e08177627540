"""Between the model's values and the messages of the API."""

from typing import Any

from relayfile.v1 import event_pb2, file_pb2, types_pb2
from tests.model.workspace import NO_TAGS, Delete, Event, Move, Mutation, Tags, Write

TAGS = (
    None,
    NO_TAGS,
    Tags(properties=(("state", "open"),)),
    Tags(properties=(("state", "done"), ("team", "core")), relations=("/a/1",)),
    Tags(permissions=("public",)),
    Tags(permissions=("allow:agent:agent-1", "public"), comments=("seen",)),
)


def semantics_message(given: Tags) -> types_pb2.Semantics:
    """As a caller may send them: untidy."""
    return types_pb2.Semantics(
        properties={f" {name} ": f"{value} " for name, value in given.properties} | {"empty": " "},
        relations=[*reversed(given.relations), *given.relations, ""],
        permissions=[*reversed(given.permissions), *given.permissions],
        comments=[f" {comment}" for comment in given.comments],
    )


def tags_of(message: types_pb2.Semantics) -> Tags:
    """As the store tells them."""
    return Tags(
        tuple(sorted(message.properties.items())),
        tuple(message.relations),
        tuple(message.permissions),
        tuple(message.comments),
    )


class Upload:
    """The messages of an upload."""

    def __init__(self, head: file_pb2.WriteFileRequest, content: bytes) -> None:
        self._head = head
        self._content = content

    @property
    def request_id(self) -> str:
        """As of other requests."""
        return self._head.request_id

    @request_id.setter
    def request_id(self, request_id: str) -> None:
        self._head.request_id = request_id

    def messages(self) -> list[file_pb2.UploadFileRequest]:
        """The head, and pieces of 1,000 bytes."""
        content = self._content
        pieces = [content[start : start + 1_000] for start in range(0, len(content), 1_000)] or [b""]
        head = file_pb2.UploadFileRequest(head=self._head, size_bytes=len(content))
        return [head] + [
            file_pb2.UploadFileRequest(chunk=types_pb2.ContentChunk(data=data, last=number == len(pieces)))
            for number, data in enumerate(pieces, 1)
        ]

    def SerializeToString(self, *, deterministic: bool) -> bytes:  # as messages name it
        """What tells it from another one."""
        return b"".join(each.SerializeToString(deterministic=deterministic) for each in self.messages())


def expected_revision(request: Any) -> int | None:
    """`if_revision`; None: absent."""
    return request.if_revision if request.HasField("if_revision") else None


def item_message(item: Mutation, fields: dict[str, Any]) -> file_pb2.WriteFilesItem:
    """The item, with its condition."""
    if isinstance(item, Move):
        return file_pb2.WriteFilesItem(
            move=file_pb2.MoveItem(path=item.path, to_path=item.to_path), **_positive(fields)
        )
    if isinstance(item, Delete):
        return file_pb2.WriteFilesItem(delete=file_pb2.DeleteItem(path=item.path), **_positive(fields))
    write = file_pb2.WriteItem(path=item.path, content=item.content, content_type=item.content_type)
    if item.tags is not None:
        write.semantics.CopyFrom(semantics_message(item.tags))
    return file_pb2.WriteFilesItem(write=write, **fields)


def _positive(fields: dict[str, Any]) -> dict[str, Any]:
    """Only a write expects that there is nothing."""
    return {name: value for name, value in fields.items() if value}


def item_of(message: file_pb2.WriteFilesItem) -> Mutation:
    """What an item asks for."""
    expected = expected_revision(message)
    force = expected is None
    if message.HasField("move"):
        return Move(message.move.path, message.move.to_path, expected, force)
    if message.HasField("delete"):
        return Delete(message.delete.path, expected, force)
    write = message.write
    given = None
    if write.HasField("semantics"):
        given = next(each for each in TAGS if each is not None and semantics_message(each) == write.semantics)
    return Write(write.path, write.content, expected, force, write.content_type, given)


def event_of(event: event_pb2.Event) -> Event:
    """An event as it was told."""
    return Event(
        event.revision,
        event_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_").lower(),
        event.path,
        types_pb2.Origin.Name(event.origin).removeprefix("ORIGIN_").lower(),
        event.moved_to,
        event.moved_from,
        event.content_sha256,
        event.size_bytes,
    )
