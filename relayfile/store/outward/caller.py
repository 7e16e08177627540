"""Doing one claimed operation: the request that it needs, and the answer that ends its claim."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from relayfile.paths import check_write_path, normalise
from relayfile.settings.targets import TargetDefinition
from relayfile.store.engine import Engine, WorkspaceKey
from relayfile.store.outward.answers import (
    MESSAGE_BYTES_MAX,
    Fetched,
    TargetAnswer,
    TargetFault,
    WriteDone,
    of_fetch,
    of_write,
)
from relayfile.store.outward.call_span import call_span, tell
from relayfile.store.outward.http import HttpSender
from relayfile.store.outward.requests import (
    TargetRequest,
    fetch_request,
    object_id_of,
    read_headers,
    read_secret,
    write_request,
)
from relayfile.store.plan.writeback.rows import OperationKind, OperationRow
from relayfile.telemetry import Tracing
from relayfile.v1 import types_pb2, writeback_pb2
from relayfile.wire import from_us, is_object_id

CREDENTIAL_BYTES_MAX: Final = 64 * 1024
CREDENTIAL_MISSING: Final = "CREDENTIAL_MISSING"


class Done(NamedTuple):
    """What a target did."""

    success: writeback_pb2.OperationSuccess
    content: bytes = b""
    """Of the change that a fetch brought."""


class Caller:
    """Calls targets. Makes no decision about claims."""

    def __init__(self, engine: Engine, sender: HttpSender, tracing: Tracing) -> None:
        self._engine = engine
        self._sender = sender
        self._tracing = tracing

    async def do(
        self, key: WorkspaceKey, row: OperationRow, definition: TargetDefinition, now_us: int
    ) -> Done | TargetFault:
        """What the target did; or why not. Never raises for what a target or a credential file does."""
        with call_span(self._tracing, key.workspace_id, row, definition.url) as span:
            answer = await self._answer(key, row._replace(traceparent=span.traceparent), definition, now_us)
            tell(span, answer)
        if isinstance(answer, TargetFault):
            return answer
        if row.kind is OperationKind.FETCH:
            return _fetched(row, of_fetch(answer, now_us))
        return _written(of_write(answer, now_us))

    async def _answer(
        self, key: WorkspaceKey, row: OperationRow, definition: TargetDefinition, now_us: int
    ) -> TargetAnswer | TargetFault:
        request = await self._request(key, row, definition, now_us)
        return request if isinstance(request, TargetFault) else await self._sender.send(request)

    async def _request(
        self, key: WorkspaceKey, row: OperationRow, definition: TargetDefinition, now_us: int
    ) -> TargetRequest | TargetFault:
        try:
            credential = await asyncio.to_thread(_read, definition.credential_file)
            if row.kind is OperationKind.FETCH:
                return fetch_request(definition.url, read_headers(credential), key.workspace_id, row)
            secrets = _secrets(credential)
        except (OSError, ValueError) as error:
            return TargetFault(CREDENTIAL_MISSING, f"the credential file of {row.provider}: {error}", retryable=True)
        content: bytes | None = None
        if row.kind is OperationKind.WRITE:
            async with self._engine.view(key) as view:
                content = (await view.contents([row.content_id])).get(row.content_id, b"")
        # Megabytes take long to write as JSON and to sign: not on the loop.
        return await asyncio.to_thread(write_request, definition.url, secrets, key.workspace_id, row, content, now_us)


def _read(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(CREDENTIAL_BYTES_MAX)


def _secrets(text: str) -> Sequence[bytes]:
    found = [read_secret(line.strip()) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not found:
        raise ValueError("has no secret")
    return found


def _written(done: WriteDone | TargetFault) -> Done | TargetFault:
    if isinstance(done, TargetFault):
        return done
    success = writeback_pb2.OperationSuccess(provider_status=done.status)
    if is_object_id(done.provider_object_id) and len(done.provider_object_id.encode()) <= 512:
        success.provider_object_id = done.provider_object_id
    if done.canonical_path and check_write_path(normalise(done.canonical_path)) is None:
        success.canonical_path = done.canonical_path
    if done.occurred_us is not None and done.occurred_us >= 0:
        success.occurred_at.CopyFrom(from_us(done.occurred_us))
    return Done(success)


def _fetched(row: OperationRow, fetched: Fetched | TargetFault) -> Done | TargetFault:
    if isinstance(fetched, TargetFault):
        return fetched
    success = writeback_pb2.OperationSuccess(provider_status=fetched.status)
    success.change.provider_object_id = object_id_of(row)
    if not row.revision:
        # There was no file when the signal came, which says where one belongs; a file since then stays where it is.
        success.change.path = row.path
    if fetched.content is None:
        success.change.kind = types_pb2.CHANGE_KIND_DELETE
        return Done(success)
    success.change.kind = types_pb2.CHANGE_KIND_UPSERT
    success.change.content_type = fetched.content_type
    return Done(success, fetched.content)


def clipped(message: str) -> str:
    """As much of a message as an operation keeps."""
    return message.encode()[: MESSAGE_BYTES_MAX * 3].decode(errors="ignore")
