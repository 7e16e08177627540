"""QueryFiles: files by what is known of them, page after page, from indexes.

Owns the conditions of a query and how a page is found. The rarest of the conditions that have an index leads, the
others are probed, and the file itself is looked at last. A page looks at a bounded number of files, in slices of one
revision each; one that found few is short, and its token says where to go on. Refuses to read what no condition names.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from relayfile.paths import TreePath
from relayfile.store.access import ReadAccess
from relayfile.store.engine import WorkspaceView
from relayfile.store.plan.file_index import Term, TermKind, property_term, term_of
from relayfile.store.plan.rows import FileRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.reading import Reading, TimeLeft
from relayfile.store.servicers.wire import fill_file
from relayfile.v1 import file_pb2
from relayfile.wire import SEMANTICS_BYTES_MAX, is_provider_name

PAGE_DEFAULT: Final = 1_000
PAGE_MAX: Final = 5_000
PROPERTIES_MAX: Final = 20
SLICE_FILES: Final = 1_000
"""Looked at without a pause: a few milliseconds."""
SLICE_FILES_MIN: Final = 100
LOOKED_AT_MAX: Final = 20_000
"""For one page."""
PAGE_BYTES_MAX: Final = 3 << 20
"""gRPC clients refuse messages above 4 MiB by default, and a file's semantics may have 64 KiB."""
_COUNTED_MAX: Final = (64, 1_024, 16_384)
"""How far terms are counted to find the rarest."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a file must satisfy; empty ones are not asked for."""

    directory: TreePath
    provider: str
    relation: str
    permission: str
    comment: str
    properties: dict[str, str]

    def terms(self) -> list[Term]:
        """What the index knows of them."""
        lists = (
            (TermKind.RELATION, self.relation),
            (TermKind.PERMISSION, self.permission),
            (TermKind.COMMENT, self.comment),
        )
        named = [term_of(kind, value) for kind, value in lists if value]
        return named + [property_term(name, value) for name, value in self.properties.items()]

    def hold(self, row: FileRow) -> bool:
        """Whether they all do for a file below the directory."""
        semantics = row.semantics
        return (
            (not self.provider or row.provider == self.provider)
            and (not self.relation or self.relation in semantics.relations)
            and (not self.permission or self.permission in semantics.permissions)
            and (not self.comment or self.comment in semantics.comments)
            and all(semantics.properties.get(name) == value for name, value in self.properties.items())
        )


class _Slice(NamedTuple):
    """What one look at the index found."""

    files: Sequence[FileRow]
    after: str
    """Go on after this path."""
    at_end: bool


@dataclass(frozen=True, slots=True)
class FileQuery:
    """Serves queries."""

    reading: Reading

    async def page(self, request: file_pb2.QueryFilesRequest, call: TimeLeft) -> file_pb2.QueryFilesResponse:
        """The page after the token's."""
        checks = Checks()
        checks.workspace(request.workspace_id)
        wanted = _conditions(request, checks)
        size = checks.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        checks.page_token(request.page_token)
        checks.not_negative(request.min_revision, "min_revision")
        checks.done()
        key = self.reading.key(request.workspace_id)
        await self.reading.reached(key, request.min_revision, call)
        async with self.reading.snapshot(key) as (view, workspace):
            binding = ("QueryFiles", request.workspace_id, workspace.history_id, repr(wanted))
            terms = await _rarest_first(view, wanted)
        after = self.reading.tokens.unseal(binding, request.page_token)
        access = ReadAccess.current()
        answer = file_pb2.QueryFilesResponse()
        page_bytes = looked_at = 0
        at_end = False
        while not at_end and len(answer.files) < size and looked_at < LOOKED_AT_MAX and page_bytes < PAGE_BYTES_MAX:
            async with self.reading.snapshot(key) as (view, workspace):
                if answer.files and workspace.revision != answer.revision:
                    break
                answer.revision = workspace.revision
                limit = min(SLICE_FILES, max(SLICE_FILES_MIN, size - len(answer.files)))
                found = await _next(view, wanted, terms, after, limit)
                files = await (await access.sight(view)).only(found.files)
            looked_at += limit
            at_end, after = found.at_end, found.after
            for index, row in enumerate(files):
                if len(answer.files) == size or page_bytes >= PAGE_BYTES_MAX:
                    at_end, after = False, files[index - 1].path
                    break
                fill_file(answer.files.add(), row)
                page_bytes += answer.files[-1].ByteSize()
            await asyncio.sleep(0)
        if not at_end:
            answer.next_page_token = self.reading.tokens.seal(binding, after)
        return answer


def _conditions(request: file_pb2.QueryFilesRequest, checks: Checks) -> Conditions:
    """As they are kept: trimmed, as semantics are."""
    if request.provider and not is_provider_name(request.provider):
        checks.refuse("provider", "must have 1 to 64 characters of a-z 0-9 - and not start with -")
    checks.at_most(len(request.properties), PROPERTIES_MAX, "properties", "entries")
    for field in ("relation", "permission", "comment"):
        text: str = getattr(request, field)
        checks.at_most(len(text.encode()), SEMANTICS_BYTES_MAX, field, "bytes")
        checks.require(not text or bool(text.strip()), field, "is only white space, which no file has")
    properties = {name.strip(): value.strip() for name, value in sorted(request.properties.items())}
    for name, value in properties.items():
        checks.require(bool(name and value), "properties", "has an empty name or value, which no file has")
        checks.at_most(len(name.encode()) + len(value.encode()), SEMANTICS_BYTES_MAX, "properties", "bytes in an entry")
    return Conditions(
        checks.directory_path(request.path_prefix, "path_prefix"),
        request.provider,
        request.relation.strip(),
        request.permission.strip(),
        request.comment.strip(),
        properties,
    )


async def _rarest_first(view: WorkspaceView, wanted: Conditions) -> list[Term]:
    """The terms, the one that fewest files have first. Counting ends where one is known to be rare enough."""
    terms = wanted.terms()
    counted: list[tuple[int, Term]] = []
    if len(terms) < 2:
        return terms
    for at_most in _COUNTED_MAX:
        counted = [(await view.term_count(term, wanted.directory, at_most), term) for term in terms]
        counted.sort()
        if counted[0][0] < at_most:
            break
    return [term for _, term in counted]


async def _next(view: WorkspaceView, wanted: Conditions, terms: Sequence[Term], after: str, limit: int) -> _Slice:
    """The files that satisfy all, among the next that are looked at."""
    if terms:
        candidates = await view.term_paths(terms[0], terms[1:], wanted.directory, after, limit)
        rows = await view.files([path for path, has_others in candidates if has_others])
        files = [row for row in rows if row is not None and wanted.hold(row)]
        return _Slice(files, candidates[-1].path if candidates else after, len(candidates) < limit)
    if wanted.provider:
        walked = await view.provider_files(wanted.provider, wanted.directory, after, limit)
        return _Slice(walked.files, walked.looked_at_to, walked.is_complete)
    listed = await view.list_files(wanted.directory, after, limit)
    return _Slice(listed, listed[-1].path if listed else after, len(listed) < limit)
