"""The state machine of files: every mutation and every read, against the model, with the node restarted in between."""

import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relayfile.store.integrity.finding import ALL_CHECKS, AuditEnd, AuditOrder, Finding
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.writeback.limits import WritebackLimits
from relayfile.store.sqlite.audit.run import SqliteAudit
from relayfile.store.sqlite.engine import SqliteEngine
from relayfile.v1 import event_pb2, file_pb2, types_pb2
from tests.model.drawn import BAD_PATHS, conditions, content_types, contents, items, paths, request_ids, tags
from tests.model.driver import Driver
from tests.model.operation import DELETES_MAX
from tests.model.watching import INTERESTS, TreeDigest, Watcher
from tests.model.wire import (
    TAGS,
    Upload,
    event_of,
    expected_revision,
    item_message,
    item_of,
    semantics_message,
    tags_of,
)
from tests.model.workspace import (
    Delete,
    File,
    Move,
    Mutation,
    Tags,
    Workspace,
    Write,
    tree_digest,
)
from tests.support.store_node import SHARDS
from tests.support.writeback import WRITEBACK_POLICY, W

POLICY = replace(WRITEBACK_POLICY, plan=PlanLimits(writeback=WritebackLimits(quarantine_deletes=DELETES_MAX)))
MEMORY = Path("/dev/shm")
"""Nobody cuts the power here: what a disk takes for its syncs would be most of the time."""


class FileMachine(RuleBasedStateMachine):
    """See the module."""

    runner: ClassVar[asyncio.Runner]
    """Whose loop the nodes run on; set by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="model-", dir=MEMORY if MEMORY.is_dir() else None)
        self.driver = Driver(self.runner, Path(self.directory.name), POLICY)
        self.model = Workspace()
        self.answers: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        """(RPC, request id) -> request and answer, of those that were not refused."""
        self.checked_revision = 0
        """Of the last event that was compared."""
        self.numbers = count(1)
        self.digests: dict[int, TreeDigest] = {}
        """Of the root, at the revisions between two rules."""
        self.driver.start()
        self.watchers = [Watcher(self.driver, interest, 0) for interest in INTERESTS]

    # --- mutations

    @rule(
        path=paths, content=contents, content_type=content_types, given=tags, condition=conditions,
        request_id=request_ids, uploads=st.booleans(),
    )  # fmt: skip
    def write(
        self, path: str, content: bytes, content_type: str, given: Tags | None, condition: str, request_id: str,
        uploads: bool,
    ) -> None:  # fmt: skip
        """One file, whole or in pieces."""
        request = file_pb2.WriteFileRequest(
            workspace_id=W,
            path=path,
            content_type=content_type,
            request_id=request_id,
            **self._condition(path, condition),
        )
        if given is not None:
            request.semantics.CopyFrom(semantics_message(given))
        if not uploads:
            request.content = content
        wanted = Write(path, content, expected_revision(request), request.force, content_type, given)
        if uploads:
            self._mutate("UploadFile", Upload(request, content), wanted)
        else:
            self._mutate("WriteFile", request, wanted)

    @rule(path=paths, condition=conditions, request_id=request_ids)
    def delete(self, path: str, condition: str, request_id: str) -> None:
        """One file."""
        request = file_pb2.DeleteFileRequest(
            workspace_id=W, path=path, request_id=request_id, **self._condition(path, condition)
        )
        self._mutate("DeleteFile", request, Delete(path, expected_revision(request), request.force))

    @rule(path=paths, to_path=paths, condition=conditions, request_id=request_ids)
    def move(self, path: str, to_path: str, condition: str, request_id: str) -> None:
        """One file."""
        request = file_pb2.MoveFileRequest(
            workspace_id=W, path=path, to_path=to_path, request_id=request_id, **self._condition(path, condition)
        )
        self._mutate("MoveFile", request, Move(path, to_path, expected_revision(request), request.force))

    @rule(drawn=st.lists(st.tuples(items, st.sampled_from(("force", "right", "ahead"))), min_size=1, max_size=6))
    def write_many(self, drawn: list[tuple[Mutation, str]]) -> None:
        """Independent items in one commit, each with its own result."""
        request = file_pb2.WriteFilesRequest(workspace_id=W)
        for item, condition in drawn:
            fields = self._condition(item.path, condition)
            fields.pop("force", None)
            if isinstance(item, Move) and item.path == item.to_path:
                continue
            request.items.append(item_message(item, fields))
        if not request.items:
            return
        if self.driver.kill_steps is not None:
            request.request_id = self._new_request_id()
        answer, _ = self.driver.ask_surely(lambda: self._files.WriteFiles(request, metadata=self._metadata))
        assert answer is not None
        assert len(answer.results) == len(request.items)
        for message, result in zip(request.items, answer.results, strict=True):
            item = item_of(message)
            revision, changed, refusal = self.model.tried(item)
            assert (result.reason, bool(result.code)) == (refusal, bool(refusal)), item
            if refusal:
                continue
            assert result.changed == changed
            if not isinstance(item, Delete):
                assert result.file.revision == revision
        self.after_edits([result.operation_id for result in answer.results if result.operation_id])
        assert answer.revision == self.model.revision

    @rule(path=st.sampled_from(BAD_PATHS), call=st.sampled_from(("write", "delete", "move", "item")))
    def bad_path(self, path: str, call: str) -> None:
        """Nothing changes."""
        if call == "write":
            work = self._files.WriteFile(
                file_pb2.WriteFileRequest(workspace_id=W, path=path, force=True), metadata=self._metadata
            )
        elif call == "delete":
            work = self._files.DeleteFile(
                file_pb2.DeleteFileRequest(workspace_id=W, path=path, force=True), metadata=self._metadata
            )
        elif call == "move":
            work = self._files.MoveFile(
                file_pb2.MoveFileRequest(workspace_id=W, path="/a", to_path=path, force=True), metadata=self._metadata
            )
        else:
            good = file_pb2.WriteFilesItem(write=file_pb2.WriteItem(path="/a", content=b"never"))
            bad = file_pb2.WriteFilesItem(delete=file_pb2.DeleteItem(path=path))
            work = self._files.WriteFiles(
                file_pb2.WriteFilesRequest(workspace_id=W, items=[good, bad]), metadata=self._metadata
            )
        _, refusal = self.driver.ask(work)
        assert refusal in {"INVALID_ARGUMENT", "INVALID_PATH"}

    # --- time

    @rule(seconds=st.sampled_from((0.3, 1.0, 2.0, 9.0, 31.0, 130.0)))
    def pass_time(self, seconds: float) -> None:
        """What is due meanwhile is done."""
        self.driver.clock.advance(seconds)
        self.after_time()

    @rule(steps=st.integers(0, 20))
    def die_soon(self, steps: int) -> None:
        """In the middle of the next call that can be repeated."""
        self.driver.kill_steps = steps

    @rule()
    def kill(self) -> None:
        """The node dies without warning."""
        self.driver.kill()
        self.after_time()

    @rule()
    def restart(self) -> None:
        """The node ends and another process opens its file."""
        self.driver.stop()
        self.driver.clock.advance(0.01)
        self.driver.start()
        self.after_time()

    # --- watchers

    @rule(number=st.integers(0, len(INTERESTS) - 1), ending=st.sampled_from(("cut", "resume", "resume", "level")))
    def watch(self, number: int, ending: str) -> None:
        """One of them is cut off, goes on, or is waited for."""
        watcher = self.watchers[number]
        if ending == "cut":
            watcher.cut()
        elif ending == "resume":
            watcher.resume()
        else:
            watcher.level(self.model.events)
        watcher.check(self.model.events, self.digests)

    # --- reads

    @rule(path=paths)
    def read(self, path: str) -> None:
        """One file's bytes and description."""
        file = self.model.files.get(path)
        request = file_pb2.ReadFileRequest(workspace_id=W, path=path)
        parts, refusal = self.driver.ask(self._all(self._files.ReadFile(request, metadata=self._metadata)))
        assert (refusal == "FILE_NOT_FOUND") == (file is None)
        if parts is None or file is None:
            assert refusal
            return
        assert b"".join(part.data for part in parts) == file.content
        self._compare(parts[0].file, file)

    @rule(chosen=st.sampled_from(TAGS[2:]))
    def query(self, chosen: Tags) -> None:
        """Files by what is known of them."""
        request = file_pb2.QueryFilesRequest(workspace_id=W, properties=dict(chosen.properties))
        for name in ("relation", "permission", "comment"):
            setattr(request, name, next(iter(getattr(chosen, name + "s")), ""))
        answer = self.driver.wait(self._files.QueryFiles(request, metadata=self._metadata))
        expected = [
            path
            for path, file in self.model.files.items()
            if set(chosen.properties) <= set(file.tags.properties)
            and set(chosen.relations[:1]) <= set(file.tags.relations)
            and set(chosen.permissions[:1]) <= set(file.tags.permissions)
            and set(chosen.comments[:1]) <= set(file.tags.comments)
        ]
        assert sorted(file.path for file in answer.files) == sorted(expected)

    @rule(directory=st.sampled_from(("/", "/a", "/b/c", "/linear")))
    def export(self, directory: str) -> None:
        """Everything below a directory, as JSON lines."""
        start = file_pb2.ExportStart(workspace_id=W, path=directory, format=file_pb2.EXPORT_FORMAT_UNSPECIFIED)
        call = self._files.ExportTree(
            iter([file_pb2.ExportTreeRequest(start=start, have_complete=True)]), metadata=self._metadata
        )
        messages, refusal = self.driver.ask(self._all(call))
        if messages is None:
            assert refusal == "FILE_NOT_FOUND"
            messages = []
        got = {each.file.path: each.content for message in messages for each in message.files}
        prefix = directory.rstrip("/") + "/"
        assert got == {
            path: file.content
            for path, file in self.model.files.items()
            if path.startswith(prefix) or path == directory
        }

    # --- what always holds

    @invariant()
    def agrees(self) -> None:
        """One rule for all, so that failures are short to read."""
        for check in self.checks():
            check()

    def checks(self) -> list[Callable[[], None]]:
        """In this order."""
        return [self.events_agree, self.files_agree]

    def events_agree(self) -> None:
        """The new ones, one by one."""
        request = event_pb2.ListEventsRequest(workspace_id=W, after_revision=self.checked_revision, page_size=1_000)
        answer = self.driver.wait(self.driver.stage.client.events.ListEvents(request, metadata=self._metadata))
        told = [event_of(event) for event in answer.events]
        assert told == self.model.events[self.checked_revision :]
        assert answer.revision == self.model.revision
        self.checked_revision = self.model.revision

    def files_agree(self) -> None:
        """All descriptions, and the root's digest."""
        request = file_pb2.ListTreeRequest(workspace_id=W, path="/")
        pages = self.driver.wait(self._all(self._files.ListTree(request, metadata=self._metadata)))
        told = {entry.file.path: entry.file for page in pages for entry in page.entries}
        assert sorted(told) == sorted(self.model.files)
        for path, file in self.model.files.items():
            self._compare(told[path], file)
        of_root = file_pb2.GetTreeDigestRequest(workspace_id=W, path="/", partial=True)  # rules are there
        totals = self.driver.wait(self._files.GetTreeDigest(of_root, metadata=self._metadata)).directory.totals
        expected = tree_digest(self.model.files)
        assert (totals.file_count, totals.total_bytes, totals.digest) == expected
        self.digests[self.model.revision] = expected

    def teardown(self) -> None:
        """An audit of everything the node keeps, before and after a last restart."""
        try:
            if self.driver.is_running and sys.exc_info()[0] is None:  # else the first failure is the one to show
                self.events_agree()
                for watcher in self.watchers:
                    watcher.level(self.model.events)
                    watcher.check(self.model.events, self.digests)
                    watcher.cut()
                assert self.audited() == []
                self.driver.stop()
                self.driver.clock.advance(0.01)
                self.driver.start()
                self.after_time()
                self.files_agree()
                self.export("/")
                assert self.audited() == []
        finally:
            for watcher in self.watchers:
                watcher.cut()
            if self.driver.is_running:
                self.driver.stop()
            self.directory.cleanup()

    def audited(self) -> list[Finding]:
        """What `relayfile audit --strict`, with contents, finds in the node's file."""
        return self.driver.wait(self._audited())

    # --- for more rules

    def after_edits(self, operation_ids: Sequence[str]) -> None:
        """What follows from agents' edits; here nothing is known of it."""
        self.model.edits.clear()

    def after_time(self) -> None:
        """What time brings by itself."""

    # ---

    async def _audited(self) -> list[Finding]:
        stage = self.driver.stage
        engine = stage.node.engine
        assert isinstance(engine, SqliteEngine)
        audit = SqliteAudit(engine.snapshot, self.driver.clock, SHARDS)
        order = AuditOrder(checks=ALL_CHECKS, is_strict=True)
        found: list[Finding] = []
        async for each in audit.run(order):
            if isinstance(each, Finding):
                found.append(each)
            elif isinstance(each, AuditEnd):
                assert each.finding_count == len(found)
        return found

    @property
    def _files(self) -> Any:  # the stubs take iterators and metadata in every combination
        return self.driver.stage.client.files

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return self.driver.stage.client.metadata

    async def _all(self, stream: Any) -> list[Any]:
        return [message async for message in stream]

    def _condition(self, path: str, condition: str) -> dict[str, Any]:
        """Fields of the request."""
        file = self.model.files.get(path)
        revision = 0 if file is None else file.revision
        fields: dict[str, dict[str, Any]] = {
            "absent": {},
            "force": {"force": True},
            "right": {"if_revision": revision},
            "ahead": {"if_revision": self.model.revision + 1},
            "zero": {"if_revision": 0},
            "negative": {"if_revision": -1},
        }
        return fields[condition]

    def _new_request_id(self) -> str:
        return f"once-{next(self.numbers)}"

    def _mutate(self, rpc: str, request: Any, wanted: Mutation) -> None:
        """Send a request; what it answers is what the model says, and a repeat answers the same."""
        if self.driver.kill_steps is not None:
            request.request_id = self._new_request_id()
        key = (rpc, request.request_id)
        sent = request.SerializeToString(deterministic=True)
        known = self.answers.get(key) if request.request_id else None
        lowest = 0 if isinstance(wanted, Write) else 1
        answer, refusal = self.driver.ask_surely(lambda: self._send(rpc, request))
        if answer is None:
            assert refusal == self._refusal(wanted, known, sent, lowest), wanted
            return
        if known is not None:
            assert (sent, answer.SerializeToString(deterministic=True)) == known, "a repeat gets the first answer"
            return
        if request.request_id:
            self.answers[key] = (sent, answer.SerializeToString(deterministic=True))
        revision, changed = self.model.mutate(wanted)
        if isinstance(wanted, Delete):
            assert answer.revision == revision
        else:
            assert answer.file.revision == revision
        if isinstance(wanted, Write):
            assert answer.changed == changed
        self.after_edits([answer.operation_id] if answer.operation_id else [])

    def _refusal(self, wanted: Mutation, known: tuple[bytes, bytes] | None, sent: bytes, lowest: int) -> str:
        """Why the request should have been refused; empty: it should not."""
        if wanted.if_revision is not None and wanted.if_revision < lowest:
            return "INVALID_ARGUMENT"
        if isinstance(wanted, Move) and wanted.path == wanted.to_path:
            return "INVALID_ARGUMENT"
        if known is not None:
            return "" if known[0] == sent else "REQUEST_ID_REUSED"
        return self.model.tried(wanted)[2]

    def _send(self, rpc: str, request: Any) -> Any:
        if isinstance(request, Upload):
            return self._files.UploadFile(iter(request.messages()), metadata=self._metadata)
        return getattr(self._files, rpc)(request, metadata=self._metadata)

    def _compare(self, told: types_pb2.FileMeta, file: File) -> None:
        assert told.revision == file.revision
        assert told.content_sha256 == sha256(file.content).digest()
        assert told.size_bytes == len(file.content)
        assert told.content_type == file.content_type
        assert types_pb2.Origin.Name(told.origin) == "ORIGIN_" + file.origin.upper()
        assert told.provider_object_id == file.object_id
        assert tags_of(told.semantics) == file.tags
        assert told.HasField("stale_since") == file.is_stale
