"""Whether files are found by what they have: the terms of each file, and whose files are in which directory.

Each way by itself, so that a step stays short however large the index is: what a file should be found by is looked up,
and what the index says is compared with the file.
"""

from collections.abc import Generator
from functools import partial

import apsw
import msgspec

from relayfile.paths import ROOT
from relayfile.store.engine import WorkspaceKey
from relayfile.store.integrity.finding import Check, Finding, Tally
from relayfile.store.plan.file_index import Term, TermKind, terms_of
from relayfile.store.sqlite.audit.directories import level
from relayfile.store.sqlite.audit.step import ROWS_PER_STEP, ROWS_PER_TURN, Look
from relayfile.store.sqlite.rows import decode_semantics

_KEY = "shard_id = ? AND workspace_id = ?"
_FILES = f"SELECT path, provider, semantics FROM file WHERE {_KEY} AND path > ? ORDER BY path LIMIT ?"
_HAS_TERM = f"SELECT 1 FROM file_term WHERE {_KEY} AND kind = ? AND value = ? AND path = ?"
_HAS_PROVIDER = f"SELECT 1 FROM provider_directory WHERE {_KEY} AND provider = ? AND path = ?"
_TERMS = (
    "SELECT t.kind, t.value, t.path, f.path IS NOT NULL, f.semantics FROM file_term AS t LEFT JOIN file AS f"
    " ON f.shard_id = t.shard_id AND f.workspace_id = t.workspace_id AND f.path = t.path"
    " WHERE t.shard_id = ? AND t.workspace_id = ? AND (t.kind, t.value, t.path) > (?, ?, ?)"
    " ORDER BY t.kind, t.value, t.path LIMIT ?"
)
_PROVIDER_DIRECTORIES = (
    f"SELECT provider, path, file_count FROM provider_directory WHERE {_KEY} AND (provider, path) > (?, ?)"
    " ORDER BY provider, path LIMIT ?"
)
_LEVEL = f"SELECT path, provider FROM file WHERE {_KEY} AND path >= ? AND path < ? ORDER BY path"
_BEFORE_TERMS = (0, "", "")


def check_indexed(cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey, after: str = "") -> Look:
    """Whether each file after the path `after` is in the index, with all its terms and as its provider's."""
    found: set[tuple[str, str]] = set()
    execute = cursor.connection.execute
    seen = 0
    files = cursor.execute(_FILES, (*key, after, ROWS_PER_STEP))
    for count, (path, provider, semantics) in enumerate(files, 1):
        place = provider, path[: path.rfind("/") + 1]
        if provider and place not in found:
            found.add(place)
            if execute(_HAS_PROVIDER, (*key, *place)).fetchone() is None:
                subject, message = " ".join(place), f"{path!r} is of {provider}, and the directory is not in the index"
                yield Finding(Check.INDEXES, *key, subject, "PROVIDER_DIRECTORY_MISSING", message)
        if semantics is not None:
            terms = _terms(semantics)
            if terms is None:
                message = "the semantics cannot be read, so that its terms cannot be checked"
                yield Finding(Check.INDEXES, *key, path, "SEMANTICS_UNREADABLE", message)
            for term in sorted(terms or ()):
                seen += 1
                if execute(_HAS_TERM, (*key, *term, path)).fetchone() is None:
                    message = f"the file has the {_shown(term)}, and is not found by it"
                    yield Finding(Check.INDEXES, *key, path, "TERM_MISSING", message)
                if not seen % ROWS_PER_TURN:
                    yield None
        if not count % ROWS_PER_TURN:
            yield None
        if count == ROWS_PER_STEP or seen >= ROWS_PER_STEP:
            return partial(check_indexed, key=key, after=path)
    return None


def check_terms(
    cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey, after: tuple[int, str, str] = _BEFORE_TERMS
) -> Look:
    """Whether each file has the terms by which it is found."""
    count = 0
    for kind, value, path, is_there, semantics in cursor.execute(_TERMS, (*key, *after, ROWS_PER_STEP)):
        after = (kind, value, path)
        terms = set[Term]() if semantics is None else _terms(semantics)
        if terms is not None and (kind, value) not in terms:  # unreadable ones are told with their files
            what = "does not have it" if is_there else "is not there"
            message = f"the file is found by the {_shown((kind, value))}, and {what}"
            yield Finding(Check.INDEXES, *key, path, "TERM_LEFT_OVER", message)
        count += 1
        if not count % ROWS_PER_TURN:
            yield None
    return partial(check_terms, key=key, after=after) if count == ROWS_PER_STEP else None


def check_provider_directories(
    cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey, after: tuple[str, str] = ("", "")
) -> Look:
    """Whether directories hold as many files of a provider as the index says: of a directory, in one snapshot."""
    seen = 0
    for provider, path, file_count in cursor.execute(_PROVIDER_DIRECTORIES, (*key, *after, ROWS_PER_STEP)):
        after = (provider, path)
        looked_at, counted = yield from _count(cursor, key, provider, path)
        if counted != file_count or not counted:
            reason = "PROVIDER_COUNT_MISMATCH" if counted else "PROVIDER_DIRECTORY_EMPTY"
            message = f"the index says {file_count} files of {provider}, and {counted} are there"
            yield Finding(Check.INDEXES, *key, f"{provider} {path}", reason, message)
        seen += looked_at + 1
        if seen >= ROWS_PER_STEP:
            return partial(check_provider_directories, key=key, after=after)
    return None


def _count(cursor: apsw.Cursor, key: WorkspaceKey, provider: str, path: str) -> Generator[None, None, tuple[int, int]]:
    """(entries of the directory, files of the provider directly in it)."""
    looked_at = counted = 0
    for columns in level(cursor.connection, _LEVEL, key, path if path == ROOT else path.removesuffix("/")):
        looked_at += 1
        counted += len(columns) > 1 and columns[1] == provider
        if not looked_at % ROWS_PER_TURN:
            yield None
    yield None
    return looked_at, counted


def _terms(semantics: str) -> set[Term] | None:
    """None when they cannot be read."""
    try:
        return terms_of(decode_semantics(semantics))
    except msgspec.DecodeError:
        return None


def _shown(term: tuple[int, str]) -> str:
    kind, value = term
    named = TermKind(kind).name.lower() if kind in TermKind.__members__.values() else f"term of the kind {kind}"
    return f"{named} {value!r}"
