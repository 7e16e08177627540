"""Checks of requests to the read services: all violations of one request, named together.

Owns what several requests have in common (workspace, path, page size, revision). Refuses to read: what exists is the
servicers' business.
"""

import base64

from google.protobuf.timestamp_pb2 import Timestamp

from relayfile.errors import FieldViolation, InvalidArgument
from relayfile.paths import PATH_BYTES_MAX, TreePath, check_write_path, normalise
from relayfile.placement import check_any_workspace_id
from relayfile.wire import time_refusal, to_us

HISTORY_ID_BYTES_MAX = 128
REQUEST_ID_BYTES_MAX = 128
REASON_BYTES_MAX = 1_000


class Checks:
    """Collects violations; `done` raises them all."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def refuse(self, field: str, description: str) -> None:
        """Note a violation."""
        self._violations.append(FieldViolation(field, description))

    def require(self, condition: bool, field: str, description: str) -> None:
        """Note a violation unless `condition` holds."""
        if not condition:
            self.refuse(field, description)

    def workspace(self, workspace_id: str, field: str = "workspace_id") -> None:
        """A workspace must be named, by a name that one can have."""
        why = check_any_workspace_id(workspace_id) if workspace_id else "is required"
        if why is not None:
            self.refuse(field, why)

    def file_path(self, raw: str, field: str = "path") -> TreePath:
        """The path of a file: never the root."""
        path = normalise(raw)
        why = check_write_path(path) if raw else "is required"
        if why is not None:
            self.refuse(field, why)
        return path

    def directory_path(self, raw: str, field: str = "path") -> TreePath:
        """The path of a directory or a file; empty is the root."""
        path = normalise(raw)
        why = None if path == "/" else check_write_path(path)
        if why is not None:
            self.refuse(field, why)
        return path

    def not_negative(self, value: int, field: str) -> None:
        """Counts, sizes and revisions."""
        self.require(value >= 0, field, f"is {value}, and must not be negative")

    def at_most(self, count: int, most: int, field: str, what: str) -> None:
        """A bound on a repeated field or a length."""
        self.require(count <= most, field, f"has {count} {what}; at most {most} are accepted")

    def page_size(self, asked: int, default: int, most: int, field: str = "page_size") -> int:
        """The entries of a page: the default for 0, coerced down to `most`."""
        self.not_negative(asked, field)
        return min(asked or default, most)

    def page_token(self, token: str, field: str = "page_token") -> None:
        """No token is longer than a path and its digest in base64."""
        longest = len(base64.b64encode(bytes(PATH_BYTES_MAX + 64)))
        self.require(len(token) <= longest, field, "is longer than any token of this service")

    def time_us(self, time: Timestamp | None, field: str) -> int | None:
        """Unix microseconds of a time that need not be given: None is not."""
        why = None if time is None else time_refusal(time)
        if why is not None:
            self.refuse(field, why)
        return None if time is None or why is not None else to_us(time)

    def request_id(self, value: str, field: str = "request_id") -> None:
        """An id that the caller chose; none is fine."""
        length = len(value.encode())
        self.require(length <= REQUEST_ID_BYTES_MAX, field, f"is longer than {REQUEST_ID_BYTES_MAX} bytes")

    def history_id(self, value: str, field: str = "history_id") -> None:
        """The history of a workspace that the caller knows; none is fine."""
        self.at_most(len(value.encode()), HISTORY_ID_BYTES_MAX, field, "bytes")

    def reason(self, value: str, field: str = "reason") -> None:
        """Why an administrative action was ordered; none is fine."""
        length = len(value.encode())
        self.require(length <= REASON_BYTES_MAX, field, f"is longer than {REASON_BYTES_MAX} bytes")

    def done(self) -> None:
        """Raise `InvalidArgument` with everything that was noted."""
        if self._violations:
            raise InvalidArgument(self._violations)
