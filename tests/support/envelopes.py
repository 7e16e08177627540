"""Envelopes for tests of gRPC publishing."""

from collections.abc import Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from relayfile.v1 import ingest_pb2, types_pb2


def upsert(path: str, content: bytes, *, object_id: str = "", occurred_us: int | None = None) -> types_pb2.FileChange:
    change = types_pb2.FileChange(
        kind=types_pb2.CHANGE_KIND_UPSERT,
        path=path,
        provider_object_id=object_id,
        content=content,
        content_type="text/plain",
    )
    if occurred_us is not None:
        change.occurred_at.CopyFrom(timestamp(occurred_us))
    return change


def timestamp(unix_us: int) -> Timestamp:
    return Timestamp(seconds=unix_us // 1_000_000, nanos=unix_us % 1_000_000 * 1000)


def envelope(workspace: str, *changes: types_pb2.FileChange, delivery_id: str = "") -> types_pb2.Envelope:
    return types_pb2.Envelope(workspace_id=workspace, provider="generic", delivery_id=delivery_id, changes=changes)


def batches(envelopes: list[types_pb2.Envelope], size: int) -> Iterator[ingest_pb2.PublishEnvelopesRequest]:
    for start in range(0, len(envelopes), size):
        yield ingest_pb2.PublishEnvelopesRequest(batch_number=start // size, envelopes=envelopes[start : start + size])
