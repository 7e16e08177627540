"""WriteFile, WriteFiles, DeleteFile and MoveFile: from a request to mutations, and from their results to an answer.

Owns the checks of these requests, all violations of one named together, and who is said to have done it. What is wrong
with a request refuses all of it; what an item meets in the store is that item's own result.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from relayfile.errors import PermissionDenied, RelayfileError, RevisionConflict, TooLarge
from relayfile.interception import current_call
from relayfile.model import Origin, Semantics
from relayfile.placement import check_workspace_id
from relayfile.status import code_of
from relayfile.store.access import WriteAccess
from relayfile.store.once import RequestMark, mark_of
from relayfile.store.plan.file_write import (
    MUST_NOT_EXIST,
    Author,
    FileDelete,
    FileMove,
    FileMutation,
    FileResult,
    FileWrite,
)
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.wire import fill_file
from relayfile.store.writes import BatchAnswer, ItemResult, WriteBatch
from relayfile.v1 import file_pb2
from relayfile.wire import content_type_refusal, semantics_of, semantics_refusal

UNARY_CONTENT_BYTES_MAX = 1 << 20
"""More goes by UploadFile."""
ITEMS_MAX = 1_000
_SLICE_ITEMS = 200
"""Of a batch, looked at without a turn for other calls."""
_METHOD = "relayfile.v1.FileService/"
_WORKSPACE_OF_THE_SYSTEM = "must not start with _: the system's own workspaces are changed by their services only"


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """How much one write, and all uploads together, may bring."""

    content_bytes_max: int
    upload_bytes_max: int
    upload_idle_s: float
    """Longest wait for the next chunk of an upload."""


class Mutating(Protocol):
    """Mutates files, durably."""

    async def mutate(self, workspace_id: str, batch: WriteBatch, mark: RequestMark | None) -> BatchAnswer:
        """A result for each mutation, once they are on disk; a refusal of a single one is raised."""
        ...


Single: TypeAlias = file_pb2.WriteFileRequest | file_pb2.DeleteFileRequest | file_pb2.MoveFileRequest
Conditioned: TypeAlias = Single | file_pb2.WriteFilesItem
"""What has `if_revision`."""


@dataclass(frozen=True, slots=True)
class FileWriting:
    """The unary mutations."""

    files: Mutating
    content_bytes_max: int

    async def write(self, request: file_pb2.WriteFileRequest) -> file_pb2.WriteFileResponse:
        checks = Checks()
        path, semantics = self.checked_head(checks, request)
        checks.done()
        content = request.content
        self._require_size("content", len(content))
        mark = mark_of(_METHOD + "WriteFile", request)
        result = await self.put(request, path, semantics, content, b"", mark)
        answer = file_pb2.WriteFileResponse(changed=result.changed, operation_id=result.operation_id)
        assert result.file is not None, "it was written"
        fill_file(answer.file, result.file)
        return answer

    def checked_head(
        self, checks: Checks, request: file_pb2.WriteFileRequest, prefix: str = ""
    ) -> tuple[str, Semantics | None]:
        """(normalised path, given semantics) of a write; violations are noted, of fields below ``prefix``."""
        _check_workspace(checks, request.workspace_id, f"{prefix}workspace_id")
        path = checks.file_path(request.path, f"{prefix}path")
        _check_condition(checks, request, lowest=MUST_NOT_EXIST, prefix=prefix)
        checks.request_id(request.request_id, f"{prefix}request_id")
        checks.history_id(request.history_id, f"{prefix}history_id")
        return path, _checked_meta(checks, request, prefix)

    async def put(
        self,
        request: file_pb2.WriteFileRequest,
        path: str,
        semantics: Semantics | None,
        content: bytes,
        content_sha256: bytes,
        mark: RequestMark | None,
    ) -> FileResult:
        """Write the file of a checked request, whose content came with it or by itself."""
        access = WriteAccess.current()
        _require_scopes(access, path)
        by = _author(access, path)
        write = FileWrite(
            path, content, by, _expected(request), request.force, request.content_type, semantics, content_sha256
        )
        return await self._one(request, write, access, mark)

    async def delete(self, request: file_pb2.DeleteFileRequest) -> file_pb2.DeleteFileResponse:
        checks = Checks()
        _check_workspace(checks, request.workspace_id)
        path = checks.file_path(request.path)
        _check_condition(checks, request, lowest=1)
        checks.request_id(request.request_id)
        checks.history_id(request.history_id)
        checks.done()
        access = WriteAccess.current()
        _require_scopes(access, path)
        mark = mark_of(_METHOD + "DeleteFile", request)
        delete = FileDelete(path, _author(access, path), _expected(request), request.force)
        result = await self._one(request, delete, access, mark)
        return file_pb2.DeleteFileResponse(revision=result.revision, operation_id=result.operation_id)

    async def move(self, request: file_pb2.MoveFileRequest) -> file_pb2.MoveFileResponse:
        checks = Checks()
        _check_workspace(checks, request.workspace_id)
        path, to_path = checks.file_path(request.path), checks.file_path(request.to_path, "to_path")
        _check_targets(checks, path, to_path, "to_path")
        _check_condition(checks, request, lowest=1)
        checks.request_id(request.request_id)
        checks.history_id(request.history_id)
        checks.done()
        access = WriteAccess.current()
        _require_scopes(access, path, to_path)
        mark = mark_of(_METHOD + "MoveFile", request)
        move = FileMove(path, to_path, _author(access, path), _expected(request), request.force)
        result = await self._one(request, move, access, mark)
        answer = file_pb2.MoveFileResponse(operation_id=result.operation_id)
        assert result.file is not None, "it was moved"
        fill_file(answer.file, result.file)
        return answer

    async def write_many(self, request: file_pb2.WriteFilesRequest) -> file_pb2.WriteFilesResponse:
        checks = Checks()
        _check_workspace(checks, request.workspace_id)
        checks.require(bool(request.items), "items", "is empty")
        checks.at_most(len(request.items), ITEMS_MAX, "items", "items")
        checks.request_id(request.request_id)
        checks.history_id(request.history_id)
        checks.done()
        checked: list[FileMutation | None] = []
        for place, item in enumerate(request.items):
            if place % _SLICE_ITEMS == _SLICE_ITEMS - 1:
                await asyncio.sleep(0)
            checked.append(_checked_item(checks, item, f"items[{place}]"))
        checks.done()
        self._require_size("content of all items", sum(len(item.write.content) for item in request.items))
        access = WriteAccess.current()
        mutations = [each._replace(by=_item_author(access, each)) for each in checked if each is not None]
        batch = WriteBatch(tuple(mutations), is_single=False, access=access, history_id=request.history_id)
        answered = await self.files.mutate(request.workspace_id, batch, mark_of(_METHOD + "WriteFiles", request))
        answer = file_pb2.WriteFilesResponse(revision=answered.revision)
        for place, result in enumerate(answered.results):
            if place % _SLICE_ITEMS == _SLICE_ITEMS - 1:
                await asyncio.sleep(0)
            _fill_result(answer.results.add(), result)
        return answer

    async def _one(
        self, request: Single, mutation: FileMutation, access: WriteAccess, mark: RequestMark | None
    ) -> FileResult:
        batch = WriteBatch((mutation,), access=access, history_id=request.history_id)
        [result] = (await self.files.mutate(request.workspace_id, batch, mark)).results
        assert isinstance(result, FileResult), "a refusal is raised"
        return result

    def _require_size(self, what: str, size: int) -> None:
        limit = min(UNARY_CONTENT_BYTES_MAX, self.content_bytes_max)
        if size > limit:
            raise TooLarge(what=what, size=size, limit=limit)


def _require_scopes(access: WriteAccess, *changed: str) -> None:
    if (refusal := _scope_refusal(access, *changed)) is not None:
        raise refusal


def _scope_refusal(access: WriteAccess, *changed: str) -> PermissionDenied | None:
    """From the token alone; what the rules of files say is asked when the mutation is planned."""
    refusals = (access.scope_refusal(path) for path in changed)
    return next((refusal for refusal in refusals if refusal is not None), None)


def _author(access: WriteAccess, path: str, refusal: RelayfileError | None = None) -> Author:
    call = current_call()
    caller = access.caller
    return Author(
        Origin.AGENT,
        caller.subject,
        call.correlation_id,
        call.traceparent,
        may_manage=access.may_manage(path),
        refusal=refusal,
    )


def _item_author(access: WriteAccess, mutation: FileMutation) -> Author:
    changed = (mutation.path, mutation.to_path) if isinstance(mutation, FileMove) else (mutation.path,)
    return _author(access, mutation.path, _scope_refusal(access, *changed))


_NOBODY = Author(Origin.AGENT)


def _check_workspace(checks: Checks, workspace_id: str, field: str = "workspace_id") -> None:
    if workspace_id.startswith("_"):
        checks.refuse(field, _WORKSPACE_OF_THE_SYSTEM)
    elif (why := check_workspace_id(workspace_id) if workspace_id else "is required") is not None:
        checks.refuse(field, why)


def _check_condition(checks: Checks, request: Conditioned, *, lowest: int, prefix: str = "") -> None:
    expected = _expected(request)
    if expected is not None and expected < lowest:
        what = "a revision of the file" if lowest else "0 or a revision of the file"
        checks.refuse(f"{prefix}if_revision", f"is {expected}, and must be {what}, or absent")


def _check_targets(checks: Checks, path: str, to_path: str, field: str) -> None:
    checks.require(path != to_path, field, "is the path that the file has")


def _checked_meta(
    checks: Checks, write: file_pb2.WriteFileRequest | file_pb2.WriteItem, prefix: str
) -> Semantics | None:
    if (why := content_type_refusal(write.content_type)) is not None:
        checks.refuse(f"{prefix}content_type", why)
    if not write.HasField("semantics"):
        return None
    if (why := semantics_refusal(write.semantics)) is not None:
        checks.refuse(f"{prefix}semantics", why)
        return None
    return semantics_of(write.semantics)


def _checked_item(checks: Checks, item: file_pb2.WriteFilesItem, name: str) -> FileMutation | None:
    """The mutation of an item, by nobody yet."""
    action = item.WhichOneof("action")
    expected = _expected(item)
    force = expected is None
    if action == "write":
        write = item.write
        path = checks.file_path(write.path, f"{name}.write.path")
        _check_condition(checks, item, lowest=MUST_NOT_EXIST, prefix=f"{name}.")
        semantics = _checked_meta(checks, write, f"{name}.write.")
        return FileWrite(path, write.content, _NOBODY, expected, force, write.content_type, semantics)
    if action == "delete":
        path = checks.file_path(item.delete.path, f"{name}.delete.path")
        _check_condition(checks, item, lowest=1, prefix=f"{name}.")
        return FileDelete(path, _NOBODY, expected, force)
    if action == "move":
        path = checks.file_path(item.move.path, f"{name}.move.path")
        to_path = checks.file_path(item.move.to_path, f"{name}.move.to_path")
        _check_targets(checks, path, to_path, f"{name}.move.to_path")
        _check_condition(checks, item, lowest=1, prefix=f"{name}.")
        return FileMove(path, to_path, _NOBODY, expected, force)
    checks.refuse(name, "says nothing to do: one of write, delete, move is required")
    return None


def _expected(request: Conditioned) -> int | None:
    return request.if_revision if request.HasField("if_revision") else None


def _fill_result(into: file_pb2.WriteFilesResult, result: ItemResult) -> None:
    if isinstance(result, RelayfileError):
        into.code = code_of(result).value[0]
        into.reason = result.reason
        into.message = str(result)
        if isinstance(result, RevisionConflict):
            into.current_revision = result.current
        return
    into.changed = result.changed
    into.operation_id = result.operation_id
    if result.file is not None:
        fill_file(into.file, result.file)
