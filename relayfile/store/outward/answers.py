"""What a target's answer means for an operation. Pure.

A fetch: 2xx is the object's content, 404 and 410 say that it is gone. A write: 2xx is done, and a JSON object in the
body may say `provider_object_id`, `canonical_path` and `occurred_at`. For both: 408, 425, 429 and 5xx are worth another
try, 401 and 403 too (a credential is replaced by people), other answers are not.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from relayfile.wire import content_type_refusal

RETRY_AFTER_MAX_S: Final = 24 * 3600.0
MESSAGE_BYTES_MAX: Final = 300
SAID_BYTES_MAX: Final = 64 * 1024
"""Of a write's answer that is read; a longer one is done all the same."""
TIME_US_MAX: Final = 253_402_300_799_999_999
"""The last that a protobuf Timestamp may say: the end of the year 9999, UTC."""
_AGAIN: Final = frozenset({401, 403, 408, 425, 429})


@dataclass(frozen=True, slots=True)
class TargetAnswer:
    """An HTTP answer, whole."""

    status: int
    body: bytes
    content_type: str = ""
    retry_after: str = ""
    """As the header says it."""


@dataclass(frozen=True, slots=True)
class TargetFault:
    """Why an operation could not be done this time."""

    reason: str
    message: str
    retryable: bool
    retry_after_s: float | None = None
    status: int = 0
    of_target: bool = False
    """The target itself is in trouble: what else goes there would fail too."""


@dataclass(frozen=True, slots=True)
class WriteDone:
    """What the target said of a write."""

    status: int
    provider_object_id: str = ""
    canonical_path: str = ""
    occurred_us: int | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the provider has; no content: the object is gone."""

    status: int
    content: bytes | None
    content_type: str = ""


def of_write(answer: TargetAnswer, now_us: int) -> WriteDone | TargetFault:
    """What a write's answer means."""
    if not 200 <= answer.status < 300:
        return _fault(answer, now_us)
    said = _object(answer.body)
    object_id, path = said.get("provider_object_id"), said.get("canonical_path")
    return WriteDone(answer.status, _text(object_id), _text(path), _time_us(said.get("occurred_at")))


def of_fetch(answer: TargetAnswer, now_us: int) -> Fetched | TargetFault:
    """What a fetch's answer means."""
    if answer.status in (404, 410):
        return Fetched(answer.status, None)
    if answer.status == 200:
        content_type = _text(answer.content_type).partition(";")[0].strip()
        return Fetched(answer.status, answer.body, "" if content_type_refusal(content_type) else content_type)
    return _fault(answer, now_us)


def retry_after_s(raw: str, now_us: int) -> float | None:
    """Seconds that a `Retry-After` asks for (RFC 9110 10.2.3: seconds, or a date), at most a day; None: nothing."""
    raw = raw.strip()
    if raw.isascii() and raw.isdigit():
        return min(float(raw[:9]), RETRY_AFTER_MAX_S)
    try:
        date = parsedate_to_datetime(raw)
    except (ValueError, OverflowError):  # numbers of any length
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max(0.0, date.timestamp() - now_us / 1e6), RETRY_AFTER_MAX_S)


def _fault(answer: TargetAnswer, now_us: int) -> TargetFault:
    again = answer.status >= 500 or answer.status in _AGAIN
    said = answer.body[:MESSAGE_BYTES_MAX].decode(errors="replace")
    return TargetFault(
        "PROVIDER_UNAVAILABLE" if again else "PROVIDER_REFUSED",
        f"HTTP {answer.status}: {said}" if said else f"HTTP {answer.status}",
        again,
        retry_after_s(answer.retry_after, now_us),
        answer.status,
        of_target=again and answer.status != 425,
    )


def _object(body: bytes) -> dict[str, object]:
    if len(body) > SAID_BYTES_MAX:
        return {}  # what a write's answer says of the object is small; the rest is not worth the loop's time
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):  # nested deeper than anybody means
        return {}
    return said if isinstance(said, dict) else {}


def _text(raw: object) -> str:
    """As it stands in the answer; empty when it is no text that UTF-8 can write (half of a surrogate pair)."""
    if not isinstance(raw, str):
        return ""
    try:
        raw.encode()
    except UnicodeEncodeError:
        return ""
    return raw


def _time_us(raw: object) -> int | None:
    if not isinstance(raw, str):
        return None
    try:
        time = datetime.fromisoformat(raw)
    except ValueError:
        return None
    if time.tzinfo is None:
        return None
    time_us = round(time.timestamp() * 1e6)
    return time_us if time_us <= TIME_US_MAX else None
