"""The payload of a spool row: envelopes of one workspace, one after the other, each found by its offset.

A payload is a serialised `EnvelopeBatch`, written and read by its framing (field 1, length, envelope), so that one
envelope can be read back without its neighbours. Pure bytes.
"""

from collections.abc import Iterator
from typing import TypeAlias

from google.protobuf.message import DecodeError

from relayfile.errors import DataCorrupted
from relayfile.v1 import types_pb2

_KINDS = frozenset(types_pb2.ChangeKind.values()) - {types_pb2.CHANGE_KIND_UNSPECIFIED}
_TAG = b"\x0a"  # field 1 of EnvelopeBatch, length-delimited


ENVELOPE_OVERHEAD_BYTES = 192
"""What a stored envelope takes beside its own bytes at most: its row's columns, their index, and pages' rest."""

Placed: TypeAlias = tuple[types_pb2.Envelope, int, int]
"""An envelope, and where it lies in its row's payload: offset and length in bytes. One is made for each envelope."""


class PayloadBuilder:
    """A row in the making: envelopes of one workspace in the order of their arrival."""

    __slots__ = (
        "_pieces",
        "charges",
        "member_count",
        "placed",
        "providers",
        "received_us",
        "row_id",
        "size_bytes",
        "stored",
        "workspace_id",
    )

    def __init__(self, row_id: int, workspace_id: str) -> None:
        self.row_id = row_id
        self.workspace_id = workspace_id
        self.received_us = 0
        """Receive time of its first envelope."""
        self.member_count = 0
        """Changes; an envelope without changes counts as one."""
        self.providers: dict[str, int] = {}
        """Provider to changes."""
        self.charges: dict[str, int] = {}
        """Provider to bytes, as `Admission` counts them."""
        self.placed: list[Placed] = []
        self.size_bytes = 0
        self.stored = b""
        """What `payload` returned."""
        self._pieces: list[bytes] = []

    def add(self, envelope: types_pb2.Envelope, raw: bytes) -> int:
        """Append an envelope, `raw` when serialised; returns the bytes that it takes."""
        length = len(raw)
        head = _TAG + varint(length)
        offset = self.size_bytes + len(head)
        if not self.placed:
            received = envelope.received_at
            self.received_us = received.seconds * 1_000_000 + received.nanos // 1_000
        self.placed.append((envelope, offset, length))
        self._pieces += (head, raw)
        members = len(envelope.changes) or 1
        self.member_count += members
        provider = envelope.provider
        self.providers[provider] = self.providers.get(provider, 0) + members
        self.charges[provider] = self.charges.get(provider, 0) + length + ENVELOPE_OVERHEAD_BYTES
        self.size_bytes = offset + length
        return len(head) + length

    def payload(self) -> bytes:
        """The bytes to store; the pieces are given up, so call once."""
        self.stored = b"".join(self._pieces)
        self._pieces = []
        return self.stored

    def provider_text(self) -> str:
        """`name=changes:bytes` for each provider, separated by spaces (a provider's name has neither)."""
        return " ".join([f"{name}={count}:{self.charges[name]}" for name, count in self.providers.items()])


def parse_changes(text: str) -> dict[str, int]:
    """Provider to changes, from `PayloadBuilder.provider_text`."""
    return {name: int(numbers.partition(":")[0]) for name, numbers in _parse(text)}


def parse_charges(text: str, payload_bytes: int) -> dict[str, int]:
    """Provider to bytes. Rows of schema version 1 do not say: there each change counts for as much as any other."""
    if ":" in text:
        return {name: int(numbers.partition(":")[2]) for name, numbers in _parse(text)}
    changes = parse_changes(text)
    total = sum(changes.values())
    return {name: payload_bytes * count // total + count * ENVELOPE_OVERHEAD_BYTES for name, count in changes.items()}


def _parse(text: str) -> Iterator[tuple[str, str]]:
    for item in text.split():
        name, _, numbers = item.rpartition("=")
        yield name, numbers


def read_row(row_id: int, workspace_id: str, member_count: int, payload: bytes) -> list[Placed]:
    """The envelopes of a row, all of them or none. `DataCorrupted` names the row, when this is not what was stored."""
    try:
        placed = read_payload(payload)
    except DataCorrupted as error:
        why = error.what
    else:
        members = 0
        workspaces: set[str] = set()
        kinds: set[int] = set()
        for envelope, _, _ in placed:
            changes = envelope.changes
            members += len(changes) or 1
            workspaces.add(envelope.workspace_id)
            kinds.update([change.kind for change in changes])
        if members != member_count:
            why = f"it has {members} changes instead of {member_count}"
        elif workspaces - {workspace_id}:
            why = "it has an envelope of another workspace"
        elif kinds - _KINDS:
            why = "it has a change of an unknown kind"
        else:
            return placed
    raise DataCorrupted(what=f"row {row_id} of the spool, of workspace {workspace_id!r}: {why}")


def read_envelope(row_id: int, workspace_id: str, change_index: int, raw: bytes) -> types_pb2.Envelope:
    """An envelope that was found in a row before. `DataCorrupted` names the row, when it has no such change now."""
    try:
        envelope = types_pb2.Envelope.FromString(raw)
    except DecodeError as error:
        why = f"an envelope cannot be decoded ({error})"
    else:
        if change_index < len(envelope.changes):
            return envelope
        why = "an envelope lacks a change"
    raise DataCorrupted(what=f"row {row_id} of the spool, of workspace {workspace_id!r}: {why}")


def read_payload(payload: bytes) -> list[Placed]:
    """The envelopes of a stored payload. `DataCorrupted` when it has another form."""
    places = _places(payload)
    try:
        # At once: a message of its own for each costs three times as much.
        envelopes = types_pb2.EnvelopeBatch.FromString(payload).envelopes
    except DecodeError as error:
        raise DataCorrupted(what=f"an envelope cannot be decoded ({error})") from None
    return [(envelope, offset, length) for envelope, (offset, length) in zip(envelopes, places, strict=True)]


def _places(payload: bytes) -> list[tuple[int, int]]:
    """Offset and length of each envelope."""
    places: list[tuple[int, int]] = []
    position, end = 0, len(payload)
    try:
        while position < end:
            if payload[position] != 0x0A:
                raise DataCorrupted(what="it has an unknown field")
            length, offset = _read_varint(payload, position + 1)
            position = offset + length
            places.append((offset, length))
    except IndexError:
        raise DataCorrupted(what="it ends inside a length") from None
    if position > end:
        raise DataCorrupted(what="it ends inside an envelope")
    return places


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SHORT_VARINTS = tuple(_varint(number) for number in range(0x4000))


def varint(number: int) -> bytes:
    """`number` (not negative) as protobuf writes lengths."""
    return _SHORT_VARINTS[number] if number < 0x4000 else _varint(number)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
