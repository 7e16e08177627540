"""By what files are found: the terms of a file, and what a plan changes of them. Pure.

Owns which terms a file has. A relation, a permission, a comment and a property are a term each; files that have none,
nearly all, cost nothing. The provider is none: a row for every file would cost a tenth of the store's work. Instead
each directory knows whose files are directly in it, which is a row for a directory.

A term is the beginning of a value, so that a long one makes no long key: who looks a term up finds every file that has
the value, and perhaps others, and looks at the file itself before it believes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from relayfile.model import NO_SEMANTICS, Semantics
from relayfile.store.plan.rows import FileRow

VALUE_CHARACTERS_MAX: Final = 128
"""Of a term. The migration that indexed older files cuts at the same length."""


class TermKind(IntEnum):
    """What a term is made of; kept in rows."""

    RELATION = 1
    PERMISSION = 2
    COMMENT = 3
    PROPERTY = 4


class Term(NamedTuple):
    """What files are found by."""

    kind: TermKind
    value: str


def term_of(kind: TermKind, value: str) -> Term:
    """Of an entry of a list of semantics."""
    return Term(kind, value[:VALUE_CHARACTERS_MAX])


def property_term(name: str, value: str) -> Term:
    """Of a property. `a=b` named `c` and `a` named `b=c` are one term: see above."""
    return Term(TermKind.PROPERTY, f"{name}={value}"[:VALUE_CHARACTERS_MAX])


def terms_of(semantics: Semantics) -> set[Term]:
    """All terms of a file."""
    terms = {property_term(name, value) for name, value in semantics.properties.items()}
    terms.update(term_of(TermKind.RELATION, value) for value in semantics.relations)
    terms.update(term_of(TermKind.PERMISSION, value) for value in semantics.permissions)
    terms.update(term_of(TermKind.COMMENT, value) for value in semantics.comments)
    return terms


@dataclass(slots=True)
class IndexChanges:
    """What one plan changes of the index."""

    added: list[tuple[Term, str]] = field(default_factory=list)
    """(term, path)."""
    removed: list[tuple[Term, str]] = field(default_factory=list)
    provider_files: dict[tuple[str, str], int] = field(default_factory=dict)
    """(provider, directory with a `/` at its end) -> files directly in it that came (more than 0) or went."""

    def replace(self, path: str, old: FileRow | None, new: FileRow | None) -> None:
        """`new` stands at `path` instead of `old`; told once for each path of a plan."""
        before = "" if old is None else old.provider
        after = "" if new is None else new.provider
        if before != after:
            directory = path[: path.rfind("/") + 1]
            counts = self.provider_files
            if before:
                counts[before, directory] = counts.get((before, directory), 0) - 1
            if after:
                counts[after, directory] = counts.get((after, directory), 0) + 1
        had = NO_SEMANTICS if old is None else old.semantics
        has = NO_SEMANTICS if new is None else new.semantics
        if had is not has:
            self._replace_terms(path, terms_of(had), terms_of(has))

    def _replace_terms(self, path: str, had: set[Term], has: set[Term]) -> None:
        self.added += _with_path(has - had, path)
        self.removed += _with_path(had - has, path)


def _with_path(terms: Iterable[Term], path: str) -> list[tuple[Term, str]]:
    return [(term, path) for term in terms]
