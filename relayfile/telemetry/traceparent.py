"""W3C trace context as text: the form in which it travels in envelopes, batches and events (D17). Pure.

Most records are not sampled; asking that of a ``traceparent`` costs a comparison of two characters.
"""

import random
import re
from collections.abc import Iterable
from typing import NamedTuple

_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
LENGTH = 55
LINKS_MAX = 128
"""Of one span: as many as collectors keep by default. That so many of one batch are sampled apart takes a flood."""


class TraceContext(NamedTuple):
    """The ids of one span and whether it is recorded."""

    trace_id: int
    span_id: int
    sampled: bool


def is_traceparent(text: str) -> bool:
    """Whether ``text`` is a version-00 ``traceparent`` (or the start of a later version's)."""
    return (
        len(text) >= LENGTH
        and _FORM.match(text[:LENGTH]) is not None
        and (len(text) == LENGTH or (text[:2] != "00" and text[LENGTH] == "-"))
    )


def as_ours(text: str) -> str:
    """A well-formed ``traceparent`` in version 00, the only one that travels on: nobody after us knows what a later one
    says behind its ids, and that may be of any length."""
    return text if text[:2] == "00" else f"00{text[2:LENGTH]}"


def is_sampled(traceparent: str) -> bool:
    """Whether the span that a well-formed ``traceparent`` names is recorded; false for the empty text."""
    return len(traceparent) >= LENGTH and traceparent[54] in "13579bdf"


def parse(traceparent: str) -> TraceContext:
    """The parts of a well-formed ``traceparent``."""
    return TraceContext(int(traceparent[3:35], 16), int(traceparent[36:52], 16), is_sampled(traceparent))


def format_context(trace_id: int, span_id: int, *, sampled: bool) -> str:
    """The text of a trace context."""
    return f"00-{trace_id:032x}-{span_id:016x}-{'01' if sampled else '00'}"


def unsampled() -> str:
    """A new context that says: decided, and not recorded."""
    digits = random.randbytes(24).hex()  # all zeros, which would not be valid, once in 2^64
    return f"00-{digits[:32]}-{digits[32:]}-00"


def pick_links(traceparents: Iterable[str]) -> list[str]:
    """Of a batch's contexts the sampled ones, each once, at most ``LINKS_MAX``: the first, the last, and an even choice
    between."""
    sampled = list(dict.fromkeys(filter(is_sampled, traceparents)))
    if len(sampled) <= LINKS_MAX:
        return sampled
    step = (len(sampled) - 1) / (LINKS_MAX - 1)
    return [sampled[round(index * step)] for index in range(LINKS_MAX)]
