"""How messages and times are shown: one form for all commands."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from google.protobuf.message import Message


def as_json(message: "Message", *, zeros: bool = False) -> str:
    """A message as one line of JSON, its fields named as in the API; with `zeros` also those that are 0 or empty."""
    from google.protobuf.json_format import MessageToDict

    fields = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=zeros)
    return json.dumps(fields, ensure_ascii=False)


def moment(us: int) -> str:
    """Unix microseconds as a time in UTC, to the second."""
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def value_json(value: "DataclassInstance") -> str:
    """A value of the client as one line of JSON: hashes in hexadecimal, times in ISO 8601, enums in lower case."""
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value
