"""What is said to targets: the signature as receivers check it, and templates that lead nowhere else."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from relayfile.store.outward.requests import fetch_request, read_headers, read_secret, write_request
from relayfile.store.plan.writeback.rows import OperationKind, OperationRow, OperationState

NOW_US = 1_790_000_000_123_000


def row(**fields: Any) -> OperationRow:
    return OperationRow(
        operation_id="op1", provider="linear", object_key="o:issue/42", kind=OperationKind.WRITE,
        state=OperationState.CLAIMED, path="/linear/a.json", revision=7, actor="ada", created_us=1, claimable_us=1,
        claim_number=3,
    )._replace(**fields)  # fmt: skip


def test_a_write_is_signed_with_every_live_secret() -> None:
    secrets = [b"new", b"old"]
    request = write_request("https://x.example/hook", secrets, "acme", row(), b"caf\xc3\xa9", NOW_US)
    assert request.headers["webhook-id"] == "op1-3"
    assert request.headers["webhook-timestamp"] == "1790000000"
    signed = b"op1-3.1790000000." + request.body
    expected = ["v1," + base64.b64encode(hmac.new(s, signed, hashlib.sha256).digest()).decode() for s in secrets]
    assert request.headers["webhook-signature"].split(" ") == expected
    said = json.loads(request.body)
    assert (said["type"], said["timestamp"]) == ("operation.write", "2026-09-21T14:13:20.123Z")
    assert said["data"]["content"] == "café"
    assert said["data"]["provider_object_id"] == "issue/42"


def test_bytes_that_are_no_text_are_base64() -> None:
    said = json.loads(write_request("https://x.example", [b"s"], "acme", row(), b"\xff\x00", NOW_US).body)["data"]
    assert base64.b64decode(said["content_base64"]) == b"\xff\x00"
    assert "content" not in said


def test_a_draft_has_no_object() -> None:
    draft = row(object_key="p:/linear/_new/a.json", is_draft=True)
    assert (
        json.loads(write_request("https://x.example", [b"s"], "acme", draft, b"", NOW_US).body)["data"][
            "provider_object_id"
        ]
        == ""
    )


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_an_object_id_fills_one_segment_and_no_more(object_id: str) -> None:
    url = "https://api.example/v1/{type}s/{id}/full"
    request = fetch_request(url, {}, "acme", row(object_key=f"o:issue/{object_id}"))
    parsed = URL(request.url, encoded=True)
    assert parsed.host == "api.example"
    assert not parsed.query_string
    assert not parsed.fragment
    assert parsed.raw_path.split("/")[1:3] == ["v1", "issues"]
    assert len(parsed.raw_path.split("/")) == 5
    assert parsed.raw_path.split("/")[3] not in (".", "..")


def test_secrets_and_header_files() -> None:
    assert read_secret("plain") == b"plain"
    assert read_secret("whsec_" + base64.b64encode(b"\x00\xff").decode()) == b"\x00\xff"
    with pytest.raises(ValueError, match="base64"):
        read_secret("whsec_?")
    text = "# token of the integration\nAuthorization: Bearer abc:def\n\nNotion-Version: 2022-06-28\n"
    assert read_headers(text) == {"Authorization": "Bearer abc:def", "Notion-Version": "2022-06-28"}
    with pytest.raises(ValueError, match="line 2"):
        read_headers("A: b\nnonsense\n")
