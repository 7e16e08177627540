"""Protobuf values that several processes share <-> `relayfile.model`, and what an envelope from outside must satisfy.

Owns the limits of an envelope's fields, the names by which a violation is reported, and the conversion of times and
semantics. Refuses to complete an envelope (ids, times: `relayfile.ingest.delivery`) and to know a transport.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from relayfile.errors import VIOLATIONS_MAX, FieldViolation, InvalidArgument
from relayfile.ids import ID_LENGTH
from relayfile.model import Semantics
from relayfile.paths import check_write_path, normalise
from relayfile.placement import check_any_workspace_id, check_workspace_id
from relayfile.v1 import types_pb2

CHANGES_MAX: Final = 10_000
DELIVERY_ID_BYTES_MAX: Final = 256
CORRELATION_ID_BYTES_MAX: Final = 128
OBJECT_ID_BYTES_MAX: Final = 512
CONTENT_TYPE_BYTES_MAX: Final = 256
EVENT_NAME_BYTES_MAX: Final = 256
ADAPTER_VERSION_BYTES_MAX: Final = 128
OPERATION_ID_BYTES_MAX: Final = 128
FAILURE_MESSAGE_BYTES_MAX: Final = 1_000
HEADERS_MAX: Final = 64
HEADERS_BYTES_MAX: Final = 16 * 1024
SEMANTICS_ITEMS_MAX: Final = 1_000
SEMANTICS_BYTES_MAX: Final = 64 * 1024
COUNTED_MAX: Final = 1_000
"""Violations of one envelope that are counted; ``VIOLATIONS_MAX`` of them are shown."""

MICROSECONDS: Final = 1_000_000
_TIME_SECONDS_MAX: Final = 253_402_300_799
"""The end of the year 9999."""

_TEXTS: Final = (
    ("delivery_id", DELIVERY_ID_BYTES_MAX),
    ("correlation_id", CORRELATION_ID_BYTES_MAX),
    ("event_name", EVENT_NAME_BYTES_MAX),
    ("adapter_version", ADAPTER_VERSION_BYTES_MAX),
)
_CHUNKS: Final = "is for the last content of a batch of PublishEnvelopes, with its chunks after it"
_UPSERT, _PATCH = types_pb2.CHANGE_KIND_UPSERT, types_pb2.CHANGE_KIND_PATCH
_KINDS: Final = frozenset({_UPSERT, types_pb2.CHANGE_KIND_DELETE, _PATCH, types_pb2.CHANGE_KIND_SIGNAL})
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
_ENVELOPE_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}\Z")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
_OBJECT_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}/[^\x00-\x1f\x7f]+\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")
_CREDENTIAL = re.compile(r"authorization|cookie|signature|token|secret|hmac|password|api-?key")
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")


def to_us(time: Timestamp) -> int:
    """Unix microseconds; what is finer is cut off."""
    return time.seconds * MICROSECONDS + time.nanos // 1000


def set_us(time: Timestamp, us: int) -> None:
    """Write Unix microseconds into a message's field."""
    time.seconds, rest = divmod(us, MICROSECONDS)
    time.nanos = rest * 1000


def time_refusal(time: Timestamp) -> str | None:
    """Why ``time`` is no time that can be kept (completes "occurred_at ..."), or None when it is one."""
    if 0 <= time.seconds <= _TIME_SECONDS_MAX and 0 <= time.nanos < 1_000_000_000:
        return None
    return "is not a time between 1970 and 9999"


def from_us(us: int) -> Timestamp:
    """A new message for Unix microseconds."""
    seconds, rest = divmod(us, MICROSECONDS)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def semantics_of(message: types_pb2.Semantics) -> Semantics:
    """The canonical form: trimmed, empties dropped, lists without repeats and sorted."""
    pairs = ((name.strip(), value.strip()) for name, value in message.properties.items())
    return Semantics(
        properties={name: value for name, value in sorted(pairs) if name and value},
        relations=_canonical(message.relations),
        permissions=_canonical(message.permissions),
        comments=_canonical(message.comments),
    )


def semantics_refusal(message: types_pb2.Semantics) -> str | None:
    """Why no file can have these semantics (completes "semantics ..."), or None when one can."""
    items = len(message.properties) + len(message.relations) + len(message.permissions) + len(message.comments)
    if items > SEMANTICS_ITEMS_MAX:
        return f"has {items} entries; at most {SEMANTICS_ITEMS_MAX} are accepted"
    if message.ByteSize() > SEMANTICS_BYTES_MAX:
        return f"has more than {SEMANTICS_BYTES_MAX} bytes"
    return None


def content_type_refusal(content_type: str) -> str | None:
    """Why no file can have this media type, or None when one can."""
    if _bytes_exceed(content_type, CONTENT_TYPE_BYTES_MAX):
        return f"is longer than {CONTENT_TYPE_BYTES_MAX} bytes"
    return "contains a control character" if _CONTROL.search(content_type) is not None else None


def semantics_message(semantics: Semantics) -> types_pb2.Semantics:
    """The message that says the same."""
    return types_pb2.Semantics(
        properties=dict(semantics.properties),
        relations=semantics.relations,
        permissions=semantics.permissions,
        comments=semantics.comments,
    )


def is_provider_name(name: str) -> bool:
    """Whether ``name`` can name a provider: 1 to 64 characters of a-z 0-9 and `-`, not starting with `-`."""
    return _PROVIDER.match(name) is not None


def is_object_id(text: str) -> bool:
    """Whether ``text`` has the form ``<type>/<id>`` of a provider's object; its length is checked elsewhere."""
    return _OBJECT_ID.match(text) is not None


def may_keep_header(name: str) -> bool:
    """Whether a header of this lower-case name may be stored: it carries no credential and no signature."""
    return _CREDENTIAL.search(name) is None and _HEADER_NAME.match(name) is not None


@dataclass(frozen=True, slots=True)
class EnvelopeRules:
    """What an envelope from one caller must satisfy."""

    content_bytes_max: int
    """Largest content of one change."""
    raw_bytes_max: int
    """Largest raw body of a failed delivery."""
    service: bool = False
    """The caller has a service identity: it may say the envelope id and the receive time."""


def check_envelope(
    envelope: types_pb2.Envelope, rules: EnvelopeRules, name: str = "envelope"
) -> InvalidArgument | None:
    """All that is wrong with ``envelope``, named from ``name`` on (``envelopes[3].changes[0].path``); None: nothing."""
    if is_plain(envelope, rules.content_bytes_max):
        return None
    found = _Violations(name)
    # What has no route yet is an app's own: only a process of ours hands that on.
    check_name = check_any_workspace_id if rules.service else check_workspace_id
    if (why := check_name(envelope.workspace_id)) is not None:
        found.add("workspace_id", why)
    if _PROVIDER.match(envelope.provider) is None:
        found.add("provider", "must have 1 to 64 characters of a-z 0-9 - and not start with -")
    if envelope.envelope_id or envelope.HasField("received_at"):
        _check_origin(envelope, rules, found)
    for place, bytes_max in _TEXTS:
        if text := getattr(envelope, place):
            _check_text(found, place, text, bytes_max)
    if envelope.traceparent and _TRACEPARENT.match(envelope.traceparent) is None:
        found.add("traceparent", "must be a W3C trace context: 00-<32 hex>-<16 hex>-<2 hex>")
    if envelope.headers:
        _check_headers(found, "headers", envelope.headers.items())
    if envelope.HasField("failure") or envelope.HasField("raw"):
        _check_failure(envelope, rules, found)
    _check_changes(envelope.changes, rules, found)
    return found.error()


def is_plain(envelope: types_pb2.Envelope, content_bytes_max: int) -> bool:
    """Whether ``envelope`` is of the usual form, one normal change of known names, and nothing is wrong with it.

    In one pass, at half the cost: what is not of that form, or only may be wrong, is for ``check_envelope``.
    """
    changes = envelope.changes
    if len(changes) != 1 or not _are_names(envelope.workspace_id, envelope.provider) or envelope.envelope_id:
        return False
    change = changes[0]
    path, object_id, size, kind = change.path, change.provider_object_id, len(change.content), change.kind
    if kind not in _KINDS or size > content_bytes_max or (size and kind != _UPSERT and kind != _PATCH):
        return False
    if not path or check_write_path(path) is not None:
        return False
    if object_id and (len(object_id) * 4 > OBJECT_ID_BYTES_MAX or _OBJECT_ID.match(object_id) is None):
        return False
    if change.HasField("occurred_at"):
        time = change.occurred_at
        if not (0 <= time.seconds <= _TIME_SECONDS_MAX and 0 <= time.nanos < 1_000_000_000):
            return False
    texts = (
        envelope.delivery_id
        + envelope.correlation_id
        + envelope.event_name
        + envelope.adapter_version
        + change.content_type
        + change.operation_id
    )
    # Shorter together than any of them may be alone. What is printable has no control characters.
    if len(texts) > OPERATION_ID_BYTES_MAX or not (texts.isascii() and texts.isprintable()):
        return False
    traceparent = envelope.traceparent
    if traceparent and _TRACEPARENT.match(traceparent) is None:
        return False
    return not (
        envelope.HasField("received_at")
        or envelope.HasField("failure")
        or envelope.HasField("raw")
        or change.HasField("semantics")
        or change.content_follows_bytes
        or envelope.headers
    )


@lru_cache(maxsize=4096)
def _are_names(workspace: str, provider: str) -> bool:
    """Whether a workspace and a provider can be called so."""
    return check_workspace_id(workspace) is None and _PROVIDER.match(provider) is not None


class _Violations:
    """The first violations, and how many there are."""

    __slots__ = ("_name", "_shown", "_total")

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown: list[FieldViolation] = []
        self._total = 0

    def add(self, place: str, why: str) -> None:
        self._total += 1
        if len(self._shown) < VIOLATIONS_MAX:
            self._shown.append(FieldViolation(f"{self._name}.{place}", why))

    @property
    def is_enough(self) -> bool:
        """Whether to look for more is a waste: nobody reads them, and others wait meanwhile."""
        return self._total >= COUNTED_MAX

    def error(self) -> InvalidArgument | None:
        return InvalidArgument(self._shown, self._total) if self._total else None


def _canonical(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({stripped for value in values if (stripped := value.strip())}))


def _bytes_exceed(text: str, limit: int) -> bool:
    """Whether the UTF-8 form is longer than ``limit``, without encoding short texts."""
    return len(text) * 4 > limit and len(text.encode()) > limit


def _check_text(found: _Violations, place: str, text: str, limit: int) -> None:
    if _bytes_exceed(text, limit):
        found.add(place, f"is longer than {limit} bytes")
    elif _CONTROL.search(text) is not None:
        found.add(place, "contains a control character")


def _check_time(found: _Violations, place: str, time: Timestamp) -> None:
    if (why := time_refusal(time)) is not None:
        found.add(place, why)


def _check_origin(envelope: types_pb2.Envelope, rules: EnvelopeRules, found: _Violations) -> None:
    if envelope.envelope_id:
        if not rules.service:
            found.add("envelope_id", "is given by ingest; only a service may say it")
        elif _ENVELOPE_ID.match(envelope.envelope_id) is None:
            found.add("envelope_id", f"must have {ID_LENGTH} characters of Crockford's base 32")
    if envelope.HasField("received_at"):
        if not rules.service:
            found.add("received_at", "is given by ingest; only a service may say it")
        else:
            _check_time(found, "received_at", envelope.received_at)


def _check_headers(found: _Violations, place: str, headers: Iterable[tuple[str, str]]) -> None:
    size = 0
    for number, (name, value) in enumerate(headers, 1):
        size += len(name) + len(value.encode())
        if not may_keep_header(name):
            found.add(f"{place}[{name[:128]!r}]", "is not a lower-case header name that may be stored")
        elif _CONTROL.search(value) is not None:
            found.add(f"{place}[{name!r}]", "contains a control character")
        if number > HEADERS_MAX or size > HEADERS_BYTES_MAX:
            found.add(place, f"must be at most {HEADERS_MAX} headers of {HEADERS_BYTES_MAX} bytes together")
            return


def _check_failure(envelope: types_pb2.Envelope, rules: EnvelopeRules, found: _Violations) -> None:
    if not envelope.HasField("failure"):
        found.add("raw", "is accepted only together with failure")
    elif envelope.changes:
        found.add("changes", "must be empty where failure is set")
    failure, raw = envelope.failure, envelope.raw
    if envelope.HasField("failure") and _REASON.match(failure.reason) is None:
        found.add("failure.reason", "must have 1 to 64 characters of A-Z 0-9 _ and start with a letter")
    if _bytes_exceed(failure.message, FAILURE_MESSAGE_BYTES_MAX):
        found.add("failure.message", f"is longer than {FAILURE_MESSAGE_BYTES_MAX} bytes")
    if len(raw.body) > rules.raw_bytes_max:
        found.add("raw.body", f"has {len(raw.body)} bytes; at most {rules.raw_bytes_max} are accepted")
    if raw.body_follows_bytes:
        found.add("raw.body_follows_bytes", _CHUNKS)
    _check_headers(found, "raw.headers", raw.headers.items())


def _check_changes(changes: Sequence[types_pb2.FileChange], rules: EnvelopeRules, found: _Violations) -> None:
    if len(changes) > CHANGES_MAX:
        found.add("changes", f"has {len(changes)} entries; at most {CHANGES_MAX} are accepted")
        return
    for index, change in enumerate(changes):
        _check_change(change, index, rules, found)
        if found.is_enough:
            return


def _check_change(change: types_pb2.FileChange, index: int, rules: EnvelopeRules, found: _Violations) -> None:
    path, object_id = change.path, change.provider_object_id
    if change.kind not in _KINDS:
        found.add(f"changes[{index}].kind", "must be one of upsert, delete, patch, signal")
    if path:
        if (why := check_write_path(path)) is not None and (why := check_write_path(normalise(path))) is not None:
            found.add(f"changes[{index}].path", why)
    elif not object_id:
        found.add(f"changes[{index}].path", "is required where provider_object_id is empty")
    if object_id:
        _check_object_id(object_id, index, found)
    content = change.content  # read once: each time copies it
    if content:
        _check_content(len(content), change.kind, index, rules, found)
    if change.HasField("occurred_at"):
        _check_time(found, f"changes[{index}].occurred_at", change.occurred_at)
    if change.content_type:
        _check_text(found, f"changes[{index}].content_type", change.content_type, CONTENT_TYPE_BYTES_MAX)
    if change.operation_id:
        _check_text(found, f"changes[{index}].operation_id", change.operation_id, OPERATION_ID_BYTES_MAX)
    if change.HasField("semantics"):
        _check_semantics(change.semantics, index, found)
    if change.content_follows_bytes:
        found.add(f"changes[{index}].content_follows_bytes", _CHUNKS)


def _check_content(size: int, kind: int, index: int, rules: EnvelopeRules, found: _Violations) -> None:
    if size > rules.content_bytes_max:
        found.add(f"changes[{index}].content", f"has {size} bytes; at most {rules.content_bytes_max} are accepted")
    if kind not in (_UPSERT, _PATCH):
        found.add(f"changes[{index}].content", "must be empty unless the kind is upsert or patch")


def _check_object_id(object_id: str, index: int, found: _Violations) -> None:
    if _bytes_exceed(object_id, OBJECT_ID_BYTES_MAX):
        found.add(f"changes[{index}].provider_object_id", f"is longer than {OBJECT_ID_BYTES_MAX} bytes")
    elif _OBJECT_ID.match(object_id) is None:
        found.add(f"changes[{index}].provider_object_id", "must be <type>/<id>, for example issue/42")


def _check_semantics(semantics: types_pb2.Semantics, index: int, found: _Violations) -> None:
    if (why := semantics_refusal(semantics)) is not None:
        found.add(f"changes[{index}].semantics", why)
