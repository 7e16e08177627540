"""Who calls is not known, or may not do this."""

from dataclasses import dataclass
from typing import ClassVar

from relayfile.errors.reason import RelayfileError


@dataclass(kw_only=True, eq=False)
class Unauthenticated(RelayfileError):
    """The caller is not known: {why}."""

    reason: ClassVar[str] = "UNAUTHENTICATED"
    why: str


@dataclass(kw_only=True, eq=False)
class PermissionDenied(RelayfileError):
    """The caller may not do this: {why}."""

    reason: ClassVar[str] = "PERMISSION_DENIED"
    why: str
