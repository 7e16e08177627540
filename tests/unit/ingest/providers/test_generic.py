import json

import pytest

from relayfile.ingest.providers.adapter import RequestFacts
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.v1 import types_pb2

GENERIC = ProviderRegistry.load(100)["generic"]


def normalise(body: object) -> types_pb2.Envelope:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    ((delivery, _, _),) = GENERIC.normalise(RequestFacts({"webhook-id": "msg_1"}, raw))
    return delivery


def test_a_sender_says_what_changes() -> None:
    delivery = normalise(
        {
            "provider": "crm",
            "event_name": "deal.won",
            "correlation_id": "c",
            "changes": [
                {
                    "path": "/crm/deals/1.json",
                    "object_id": "deal/1",
                    "occurred_at": "2024-05-01T00:00:00.25+02:00",
                    "content": {"b": 1, "a": 2},
                    "properties": {"state": "won"},
                },
                {"kind": "delete", "object_id": "deal/2"},
                {"kind": "patch", "path": "/x.json", "content": {"a": None}},
                {"kind": "signal", "object_id": "deal/3"},
                {"path": "/x.txt", "content_text": "hé"},
                {"path": "/x.bin", "content_base64": "AAE=", "content_type": "image/x"},
            ],
        }
    )
    assert (delivery.provider, delivery.delivery_id, delivery.event_name) == ("crm", "msg_1", "deal.won")
    first, *_, text, binary = delivery.changes
    assert [change.kind for change in delivery.changes] == [1, 2, 3, 4, 1, 1]
    assert first.content == b'{\n  "a": 2,\n  "b": 1\n}\n'
    assert first.occurred_at.ToJsonString() == "2024-04-30T22:00:00.250Z"
    assert dict(first.semantics.properties) == {"state": "won"}
    assert (text.content, text.content_type) == ("hé".encode(), "text/plain; charset=utf-8")
    assert (binary.content, binary.content_type) == (b"\x00\x01", "image/x")


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (b"{", "MALFORMED_JSON", "not JSON"),
        (b'{"provider": "\xff"}', "MALFORMED_JSON", "not JSON"),
        (b"[" * 10_000, "INVALID_ENVELOPE", "object"),
        ({"changes": []}, "INVALID_ENVELOPE", "provider"),
        ({"provider": "crm", "changes": [], "x": 1}, "INVALID_ENVELOPE", "`x`"),
        ({"provider": "CRM", "changes": []}, "INVALID_ENVELOPE", "envelope.provider"),
        ({"provider": "crm", "changes": [{"path": "/a/../b"}]}, "INVALID_ENVELOPE", "envelope.changes[0].path"),
        ({"provider": "crm", "changes": [{"path": "/a", "kind": "x"}]}, "INVALID_ENVELOPE", "kind"),
        ({"provider": "crm", "changes": [{"path": "/a", "occurred_at": "x"}]}, "INVALID_ENVELOPE", "occurred_at"),
        ({"provider": "crm", "changes": [{"path": "/a", "content_base64": "*"}]}, "INVALID_ENVELOPE", "base64"),
        ({"provider": "crm", "changes": [{"path": "/a", "content": 1, "content_text": ""}]}, "INVALID_ENVELOPE", "one"),
        ({"provider": "crm", "changes": [{"path": "/a", "content_text": "x" * 101}]}, "TOO_LARGE", "101 bytes"),
        ({"provider": "crm", "changes": [{"path": "/a", "content": [[[[[[[[1]]]]]]]]}]}, "TOO_LARGE", "100 bytes"),
    ],
)
def test_what_is_no_envelope_is_a_failure(body: object, reason: str, words: str) -> None:
    failure = normalise(body).failure
    assert failure.reason == reason
    assert words in failure.message
    assert len(failure.message.encode()) <= 1000
