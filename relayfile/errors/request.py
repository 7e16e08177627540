"""The request itself is wrong: it will never be accepted as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from relayfile.errors.reason import RelayfileError

VIOLATIONS_MAX = 20
"""Field violations that one answer names; the total is always told."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that was refused: where it is (``changes[3].path``) and what is wrong with it."""

    field: str
    description: str


class InvalidArgument(RelayfileError):
    """The request is not valid.

    Carries every violation that was found, up to ``VIOLATIONS_MAX``, and how many there were in all.
    """

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Sequence[FieldViolation], total: int | None = None) -> None:
        if not violations:
            raise ValueError("an InvalidArgument names at least one field")
        self.violations: tuple[FieldViolation, ...] = tuple(violations[:VIOLATIONS_MAX])
        self.total: int = max(len(violations), total or 0)
        first = self.violations[0]
        more = f" (and {self.total - 1} more)" if self.total > 1 else ""
        super().__init__(f"{first.field}: {first.description}{more}")

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidArgument":
        """The usual case of one field."""
        return cls([FieldViolation(field, description)])

    def metadata(self) -> dict[str, str]:
        return {"violations": str(self.total)}

    @classmethod
    def metadata_keys(cls) -> tuple[str, ...]:
        return ("violations",)


@dataclass(kw_only=True, eq=False)
class InvalidPath(RelayfileError):
    """The path {path!r} cannot be written: it {why}."""

    reason: ClassVar[str] = "INVALID_PATH"
    path: str
    why: str
    field: str = "path"
    """Of the request."""


@dataclass(kw_only=True, eq=False)
class PageTokenInvalid(RelayfileError):
    """The page token does not belong to this request: {why}."""

    reason: ClassVar[str] = "PAGE_TOKEN_INVALID"
    why: str


@dataclass(kw_only=True, eq=False)
class TooLarge(RelayfileError):
    """The {what} has {size} bytes; at most {limit} are accepted."""

    reason: ClassVar[str] = "TOO_LARGE"
    what: str
    size: int
    limit: int
