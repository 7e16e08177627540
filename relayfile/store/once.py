"""Requests with an id: a repeat gets the first answer, and another request under the id is refused, for at least 7 days
(`RELAYFILE_DELIVERY_RETENTION`, D16).

`Once` wraps any kind of mutation. What it plans remembers the answers beside their effect, in the same transaction, so
that a repeat is answered from the record and has no effect, whoever sends it and whatever died in between. Only answers
are remembered: a request that was refused may succeed when it is repeated. Answers are kept whole: keep them small.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from relayfile.errors import RequestIdReused
from relayfile.store.commit import EntryKind
from relayfile.store.engine import WorkspaceKey
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import RequestKey, RequestRow

Mutation = TypeVar("Mutation")
Answer = TypeVar("Answer")


class Request(Protocol):
    """A message with a request id."""

    @property
    def request_id(self) -> str:
        """Empty: a repeat is another request."""
        ...

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:
        """The whole message."""
        ...


class RequestMark(NamedTuple):
    """What tells a request from every other one of its workspace."""

    key: RequestKey
    fingerprint: bytes


def mark_of(method: str, request: Request) -> RequestMark | None:
    """The mark of a request for the RPC `method` (`relayfile.v1.Service/Rpc`); None when it carries no id."""
    if not request.request_id:
        return None
    fingerprint = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    return RequestMark(RequestKey(method, request.request_id), fingerprint)


@dataclass(frozen=True, slots=True)
class Asked(Generic[Mutation]):
    """A mutation as it was asked for."""

    mutation: Mutation
    mark: RequestMark | None = None


class Once(Generic[Mutation, Answer]):
    """An `EntryKind` of `Asked` mutations around one of bare mutations."""

    def __init__(
        self,
        context: PlanContext,
        kind: EntryKind[Mutation, Answer],
        encode: Callable[[Answer], bytes],
        decode: Callable[[bytes], Answer],
        is_withdrawn: Callable[[Mutation], bool] = lambda _mutation: False,
    ) -> None:
        """`encode` and `decode` take an answer to its record and back; a later release must read what it wrote.

        `is_withdrawn`: whether nobody waits for a mutation any more, so that its kind refuses it.
        """
        self._context = context
        self._kind = kind
        self._encode = encode
        self._decode = decode
        self._is_withdrawn = is_withdrawn

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[Asked[Mutation]]
    ) -> tuple[Plan | None, Sequence[Answer | Exception]]:
        known = await self._known(key, [asked.mark for asked in mutations if asked.mark is not None])
        first = self._first(known, mutations)
        new = [
            place
            for place, asked in enumerate(mutations)
            if asked.mark is None or (asked.mark.key not in known and first[asked.mark.key] == place)
        ]
        plan: Plan | None = None
        answers: dict[int, Answer | Exception] = {}
        if new:
            to_plan = [mutations[place] for place in new]
            plan, planned = await self._kind.plan(key, [asked.mutation for asked in to_plan])
            plan = self._remember(key, plan, to_plan, planned)
            answers.update(zip(new, planned, strict=True))
        for place, asked in enumerate(mutations):
            mark = asked.mark
            if mark is None or place in answers:
                continue
            if mark.key in known:
                answers[place] = self._repeated(known[mark.key], mark)
            else:
                earlier = first[mark.key]
                same = mutations[earlier].mark == mark
                answers[place] = answers[earlier] if same else RequestIdReused(request_id=mark.key.request_id)
        return plan, [answers[place] for place in range(len(mutations))]

    def _first(
        self, known: Mapping[RequestKey, RequestRow], mutations: Sequence[Asked[Mutation]]
    ) -> Mapping[RequestKey, int]:
        """Where the first request of each id is that is not known: one that is waited for, where there is one. A
        caller whose connection was cut has gone, and its repeat is another one's.
        """
        first: dict[RequestKey, int] = {}
        for place, asked in enumerate(mutations):
            if asked.mark is None or asked.mark.key in known:
                continue
            chosen = first.setdefault(asked.mark.key, place)
            if self._is_withdrawn(mutations[chosen].mutation) and not self._is_withdrawn(asked.mutation):
                first[asked.mark.key] = place
        return first

    async def _known(self, key: WorkspaceKey, marks: Sequence[RequestMark]) -> Mapping[RequestKey, RequestRow]:
        if not marks:
            return {}
        async with self._context.engine.view(key) as view:
            return await view.requests([mark.key for mark in marks])

    def _repeated(self, row: RequestRow, mark: RequestMark) -> Answer | Exception:
        if row.fingerprint != mark.fingerprint:
            return RequestIdReused(request_id=mark.key.request_id)
        return self._decode(row.answer)

    def _remember(
        self,
        key: WorkspaceKey,
        plan: Plan | None,
        asked: Sequence[Asked[Mutation]],
        answers: Sequence[Answer | Exception],
    ) -> Plan | None:
        now_us = self._context.clock.now_us()
        rows = [
            RequestRow(each.mark.key, each.mark.fingerprint, self._encode(answer), now_us)
            for each, answer in zip(asked, answers, strict=True)
            if each.mark is not None and not isinstance(answer, Exception)
        ]
        if rows:
            # Without an effect too: the same request must not have one when it is repeated later.
            plan = plan or Plan(key.workspace_id, None)
            plan.requests_put += rows
        return plan
