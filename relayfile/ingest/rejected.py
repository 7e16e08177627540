"""The last requests that this process refused, for operators: bounded, without bodies, headers or secrets.

Owns the log and the totals by reason. Refuses nothing itself.
"""

from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

TEXT_CHARACTERS_MAX: Final = 128
"""Names from outside are cut here: they may be anything."""
REASONS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Rejection:
    """One refused request."""

    number: int
    """Counts up from 1 in this process."""
    time_us: int
    workspace: str
    provider: str
    reason: str
    http_status: int
    """0 for gRPC."""
    body_bytes: int
    correlation_id: str


class RejectedRequests:
    """Newest first, at most ``size_max`` of them."""

    def __init__(self, size_max: int) -> None:
        self._kept: deque[Rejection] = deque(maxlen=size_max)
        self._number = 0
        self._totals: Counter[str] = Counter()
        self._by_provider: Counter[tuple[str, str]] = Counter()

    def add(
        self,
        time_us: int,
        *,
        workspace: str,
        provider: str,
        reason: str,
        http_status: int = 0,
        body_bytes: int = 0,
        correlation_id: str = "",
    ) -> None:
        """Remember one refusal. Names are cut; ``reason`` is one of ours."""
        self._number += 1
        if reason in self._totals or len(self._totals) < REASONS_MAX:
            self._totals[reason] += 1
        key = (workspace[:TEXT_CHARACTERS_MAX], provider[:TEXT_CHARACTERS_MAX])
        if self._kept.maxlen and len(self._kept) == self._kept.maxlen:
            self._forget(self._kept[0])
        if self._kept.maxlen:
            self._by_provider[key] += 1
        self._kept.append(
            Rejection(
                number=self._number,
                time_us=time_us,
                workspace=key[0],
                provider=key[1],
                reason=reason,
                http_status=http_status,
                body_bytes=body_bytes,
                correlation_id=correlation_id[:TEXT_CHARACTERS_MAX],
            )
        )

    def newest(self, workspace: str, before: int, count: int) -> list[Rejection]:
        """At most ``count`` with a number below ``before`` (0: all), of ``workspace`` (empty: all), newest first."""
        found: list[Rejection] = []
        for each in reversed(self._kept):
            if (not before or each.number < before) and (not workspace or each.workspace == workspace):
                found.append(each)
                if len(found) == count:
                    break
        return found

    def totals(self) -> dict[str, int]:
        """Refused since the process started, by reason."""
        return dict(self._totals)

    def remembered(self, workspace: str) -> dict[str, int]:
        """Of the remembered ones those of ``workspace``, by provider."""
        return {provider: count for (of, provider), count in self._by_provider.items() if of == workspace and count}

    def _forget(self, oldest: Rejection) -> None:
        key = (oldest.workspace, oldest.provider)
        self._by_provider[key] -= 1
        if not self._by_provider[key]:
            del self._by_provider[key]
