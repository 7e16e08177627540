"""The last requests that this process refused, for operators: bounded, without bodies, headers or secrets.

Owns the log, the totals by reason, and the totals by sender, which the status shows. Refuses nothing itself.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TEXT_CHARACTERS_MAX: Final = 128
"""Names from outside are cut here: they may be anything."""
REASONS_MAX: Final = 100
UNKNOWN_PROVIDER: Final = "unknown"
SENDERS_MAX: Final = 1_000
"""Pairs of workspace and provider that are counted; beyond, the one that was quiet longest is forgotten."""


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
        self._by_sender: OrderedDict[tuple[str, str], int] = OrderedDict()

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
        count: int = 1,
        is_known_provider: bool = True,
    ) -> None:
        """Remember one refusal, of ``count`` alike that are counted. Names are cut; ``reason`` is one of ours.

        Providers that do not exist are counted together, as `unknown`: anybody can invent names.
        """
        self._number += 1
        if reason in self._totals or len(self._totals) < REASONS_MAX:
            self._totals[reason] += count
        key = (workspace[:TEXT_CHARACTERS_MAX], provider[:TEXT_CHARACTERS_MAX])
        sender = key if is_known_provider else (key[0], UNKNOWN_PROVIDER)
        self._by_sender[sender] = self._by_sender.get(sender, 0) + count
        self._by_sender.move_to_end(sender)
        if len(self._by_sender) > SENDERS_MAX:
            self._by_sender.popitem(last=False)
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

    def by_sender(self) -> Mapping[tuple[str, str], int]:
        """Refused since the process started, by workspace and provider as they were named: they may not exist."""
        return self._by_sender

    def of_workspace(self, workspace: str) -> dict[str, int]:
        """Refused since the process started for ``workspace`` (empty: for all together), by provider."""
        refused: dict[str, int] = {}
        for (of, provider), count in self._by_sender.items():
            if not workspace or of == workspace:
                refused[provider] = refused.get(provider, 0) + count
        return refused
