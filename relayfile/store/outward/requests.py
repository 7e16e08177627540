"""What is said to a target. Pure.

A write is a `POST` of JSON, signed as Standard Webhooks says (https://github.com/standard-webhooks/standard-webhooks,
spec/standard-webhooks.md): `webhook-id` is the claim's idempotency key, `webhook-timestamp` Unix seconds,
`webhook-signature` `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`, once per secret.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from relayfile.store.plan.writeback.rows import OperationRow

BASE64_MARK: Final = "whsec_"
"""Before a secret that is written in base64."""


@dataclass(frozen=True, slots=True)
class TargetRequest:
    """One HTTP request, whole."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""


def write_request(
    url: str, secrets: Sequence[bytes], workspace_id: str, row: OperationRow, content: bytes | None, now_us: int
) -> TargetRequest:
    """An operation on its way to a provider; `secrets` are the live ones, at least one."""
    body = json.dumps(_described(workspace_id, row, content, now_us), ensure_ascii=False).encode()
    message_id, seconds = row.idempotency_key, now_us // 1_000_000
    signed = b".".join((message_id.encode(), b"%d" % seconds, body))
    signatures = [base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets]
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
    if row.traceparent:
        headers["traceparent"] = row.traceparent
    return TargetRequest("POST", url, headers, body)


def fetch_request(url: str, headers: Mapping[str, str], workspace_id: str, row: OperationRow) -> TargetRequest:
    """The request for an object's content. {folder} is the last directory of its file; what fills the template is
    percent-encoded, slashes too."""
    object_type, _, object_id = object_id_of(row).partition("/")
    folder = row.path.split("/")[-2]
    for name, value in (("workspace", workspace_id), ("folder", folder), ("type", object_type), ("id", object_id)):
        url = url.replace(f"{{{name}}}", _segment(value))
    return TargetRequest("GET", url, {"accept": "application/json, */*;q=0.5", **headers})


def object_id_of(row: OperationRow) -> str:
    """`<type>/<id>`; empty for a file that is no object yet."""
    return row.object_key[2:] if row.object_key.startswith("o:") else ""


def read_secret(line: str) -> bytes:
    """A signing secret: `whsec_` and base64, else its text as it is. `ValueError` for base64 that is none."""
    if not line.startswith(BASE64_MARK):
        return line.encode()
    try:
        return base64.b64decode(line.removeprefix(BASE64_MARK), validate=True)
    except binascii.Error:
        raise ValueError("a secret with whsec_ is not base64") from None


def read_headers(text: str) -> dict[str, str]:
    """Header lines of a credential file; empty lines and lines with `#` are left out. `ValueError` names the line."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or not value.strip() or not line.isprintable():
            raise ValueError(f"line {number} is not `Name: value`")
        found[name.strip()] = value.strip()
    return found


def _segment(value: str) -> str:
    # A dot segment that is encoded by nobody would climb in the target's paths.
    quoted = quote(value, safe="")
    return quoted.replace(".", "%2E") if set(value) == {"."} else quoted


def _described(workspace_id: str, row: OperationRow, content: bytes | None, now_us: int) -> dict[str, object]:
    data: dict[str, object] = {
        "operation_id": row.operation_id,
        "workspace_id": workspace_id,
        "provider": row.provider,
        "provider_object_id": object_id_of(row),
        "kind": row.kind.name.lower(),
        "path": row.path,
        "moved_from": row.moved_from,
        "draft": row.is_draft,
        "revision": row.revision,
        "base_revision": row.base_revision,
        "content_type": row.content_type,
        "properties": dict(row.semantics.properties),
        "relations": list(row.semantics.relations),
        "comments": list(row.semantics.comments),
        "actor": row.actor,
        "correlation_id": row.correlation_id,
        "attempt": row.attempt_count + 1,
    }
    if content is not None:
        try:
            data["content"] = content.decode()
        except UnicodeDecodeError:
            data["content_base64"] = base64.b64encode(content).decode()
    time = datetime.fromtimestamp(now_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"type": f"operation.{row.kind.name.lower()}", "timestamp": time, "data": data}
