"""What every call of `MirrorService` does first: find the mirror, see that the caller may use it, answer a repeat.

Owns the order of these steps and the limits of pages. Refuses to know what a call is about.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from relayfile.auth import authorise_workspace, current_principal
from relayfile.errors import FieldViolation, InvalidArgument, MirrorRefused, Unavailable
from relayfile.syncd.answers import Kept, check_request_id, fingerprint
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.registry import Registry

PAGE_DEFAULT, PAGE_MAX = 100, 1_000
Answer = TypeVar("Answer", bound=Message)


class OfOneMirror(Protocol):
    """A request about one mirror that has an id."""

    @property
    def mirror_id(self) -> str: ...

    @property
    def request_id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What a call with a request id does: answer what was ``kept``, or ask ``mirror`` and ``keep`` the answer."""

    kept: bytes | None
    mirror: Mirror | None
    keep: Callable[[bytes], None]


class Requests:
    """The calls of this process."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def mirror(self, mirror_id: str) -> Mirror:
        """``InvalidArgument``, ``MirrorNotFound``, or ``PermissionDenied`` for one of another workspace."""
        if not mirror_id:
            raise InvalidArgument.of("mirror_id", "is required")
        mirror = self.registry.get(mirror_id)
        authorise_workspace(current_principal(), mirror.record.workspace_id)
        return mirror

    async def opened(self, mirror_id: str) -> OpenMirror:
        """Directory and journal of the mirror, opened if need be; what keeps them closed is raised."""
        mirror = self.mirror(mirror_id)
        await mirror.look()
        if mirror.opened is not None:
            return mirror.opened
        halt = mirror.seen.halt
        if halt is not None:
            raise MirrorRefused(mirror=mirror_id, why=f"{halt.reason}: {halt.message}")
        raise mirror.seen.error or Unavailable(what="mirror (it is being opened)")

    @asynccontextmanager
    async def first(
        self, rpc: str, request: OfOneMirror, violations: Sequence[FieldViolation] = ()
    ) -> AsyncIterator[Turn]:
        """Alone with the request's id, for a call that answers in its own way: with what was kept, or then keeps it.

        ``violations`` are what the caller found wrong with the other fields: all are told together.
        """
        wrong = [*([] if request.mirror_id else [FieldViolation("mirror_id", "is required")])]
        wrong += [*violations, *check_request_id(request.request_id)]
        if wrong:
            raise InvalidArgument(wrong)
        assert isinstance(request, Message)
        answers, mark = self.registry.answers, fingerprint(request, rpc)
        async with answers.once(request.request_id):
            kept = answers.find(request.request_id, mark)
            if kept is not None:
                authorise_workspace(current_principal(), kept.workspace_id)
                yield Turn(kept.answer or b"", None, lambda _: None)
                return
            mirror = self.mirror(request.mirror_id)
            record = mirror.record

            def keep(answer: bytes) -> None:
                answers.keep(request.request_id, mark, Kept(record.mirror_id, record.workspace_id, answer))

            yield Turn(None, mirror, keep)

    async def once(
        self,
        rpc: str,
        request: OfOneMirror,
        kind: type[Answer],
        work: Callable[[Mirror], Awaitable[Answer]],
        violations: list[FieldViolation] | None = None,
    ) -> Answer:
        """The answer of ``work``, or that of the first call with the request's id; failures are not kept.

        ``violations`` are what the caller found wrong with the other fields: all are told together.
        """
        async with self.first(rpc, request, violations or ()) as turn:
            if turn.mirror is None:
                answer = kind()
                answer.ParseFromString(turn.kept or b"")
                return answer
            answer = await work(turn.mirror)
            turn.keep(answer.SerializeToString())
            return answer


def page_size(requested: int) -> int:
    """Entries of a page; ``InvalidArgument`` for a negative number."""
    if requested < 0:
        raise InvalidArgument.of("page_size", "is negative")
    return min(requested or PAGE_DEFAULT, PAGE_MAX)
