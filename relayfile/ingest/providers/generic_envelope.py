"""The generic envelope: JSON with which any sender says itself what changes.

Owns the JSON form (docs/providers/generic.md) and its translation to `FileChange`s. Refuses what `relayfile.wire`
refuses, as a `Failure` that names the fields: the sender signed it, so it is stored and becomes a dead letter.
"""

import base64
import binascii
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from relayfile import pinned_json
from relayfile.model import Failure
from relayfile.v1 import types_pb2
from relayfile.wire import EnvelopeRules, check_envelope, set_us

_MESSAGE_CHARACTERS_MAX: Final = 900
_ANY_WORKSPACE: Final = "checked-by-its-front"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Final = {
    "upsert": types_pb2.CHANGE_KIND_UPSERT,
    "delete": types_pb2.CHANGE_KIND_DELETE,
    "patch": types_pb2.CHANGE_KIND_PATCH,
    "signal": types_pb2.CHANGE_KIND_SIGNAL,
}
_NOTHING: Final = msgspec.Raw(b"")


class GenericChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One object's part. At most one of ``content`` (JSON), ``content_text`` and ``content_base64``."""

    kind: Literal["upsert", "delete", "patch", "signal"] = "upsert"
    path: str = ""
    object_id: str = ""
    occurred_at: datetime | None = None
    content: msgspec.Raw = _NOTHING
    content_text: str | None = None
    content_base64: str | None = None
    content_type: str = ""
    properties: dict[str, str] = {}
    relations: list[str] = []
    permissions: list[str] = []
    comments: list[str] = []
    operation_id: str = ""


class GenericEnvelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One delivery."""

    provider: str
    changes: list[GenericChange]
    delivery_id: str = ""
    event_name: str = ""
    correlation_id: str = ""


_decode = msgspec.json.Decoder(GenericEnvelope).decode


def read_generic_envelope(body: bytes, content_bytes_max: int) -> types_pb2.Envelope | Failure:
    """The envelope in ``body``, without workspace; or why there is none."""
    try:
        generic = _decode(body)
        envelope = types_pb2.Envelope(
            provider=generic.provider,
            delivery_id=generic.delivery_id,
            event_name=generic.event_name,
            correlation_id=generic.correlation_id,
            workspace_id=_ANY_WORKSPACE,
        )
        for each in generic.changes:
            _add_change(envelope, each, content_bytes_max)
    except msgspec.ValidationError as error:
        return _invalid(str(error))
    except pinned_json.TooLong as error:
        return Failure("TOO_LARGE", f"changes[].content {error}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure("MALFORMED_JSON", f"the body is not JSON: {error}"[:_MESSAGE_CHARACTERS_MAX])
    except ValueError as error:
        return _invalid(str(error))
    refused = check_envelope(envelope, EnvelopeRules(content_bytes_max, 0))
    if refused is None:
        envelope.workspace_id = ""
        return envelope
    sizes = (violation for violation in refused.violations if violation.field.endswith(".content"))
    if any("at most" in violation.description for violation in sizes):
        return Failure("TOO_LARGE", str(refused)[:_MESSAGE_CHARACTERS_MAX])
    return _invalid("; ".join(f"{each.field}: {each.description}" for each in refused.violations))


def _invalid(why: str) -> Failure:
    return Failure("INVALID_ENVELOPE", why[:_MESSAGE_CHARACTERS_MAX])


def _add_change(envelope: types_pb2.Envelope, generic: GenericChange, content_bytes_max: int) -> None:
    """Made in its place: to put a finished one there copies its content."""
    content, content_type = _content(generic, content_bytes_max)
    change = envelope.changes.add(
        kind=_KINDS[generic.kind],
        path=generic.path,
        provider_object_id=generic.object_id,
        content=content,
        content_type=generic.content_type or content_type,
        operation_id=generic.operation_id,
    )
    if generic.occurred_at is not None:
        if generic.occurred_at.tzinfo is None:
            raise ValueError("changes[].occurred_at has no offset from UTC")
        since = generic.occurred_at - _EPOCH
        set_us(change.occurred_at, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)
    if generic.properties or generic.relations or generic.permissions or generic.comments:
        change.semantics.properties.update(generic.properties)
        change.semantics.relations.extend(generic.relations)
        change.semantics.permissions.extend(generic.permissions)
        change.semantics.comments.extend(generic.comments)


def _content(generic: GenericChange, content_bytes_max: int) -> tuple[bytes, str]:
    """The bytes, and the media type that is meant when none is named."""
    if generic.content_text is not None and generic.content_base64 is None and not generic.content:
        return generic.content_text.encode(), "text/plain; charset=utf-8"
    forms = [bool(generic.content), generic.content_text is not None, generic.content_base64 is not None]
    if sum(forms) > 1:
        raise ValueError("changes[] has more than one of content, content_text, content_base64")
    if generic.content_base64 is not None:
        try:
            return base64.b64decode(generic.content_base64, validate=True), ""
        except (ValueError, binascii.Error):
            raise ValueError("changes[].content_base64 is not base64") from None
    if forms[0]:
        return pinned_json.write(pinned_json.read(bytes(generic.content)), content_bytes_max), "application/json"
    return b"", ""
