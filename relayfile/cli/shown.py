"""How messages and times are shown: one form for all commands."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message


def as_json(message: "Message", *, zeros: bool = False) -> str:
    """A message as one line of JSON, its fields named as in the API; with `zeros` also those that are 0 or empty."""
    from google.protobuf.json_format import MessageToDict

    fields = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=zeros)
    return json.dumps(fields, ensure_ascii=False)


def moment(us: int) -> str:
    """Unix microseconds as a time in UTC, to the second."""
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
