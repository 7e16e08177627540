import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from relayfile.model import Semantics
from relayfile.v1 import types_pb2
from relayfile.wire import (
    CHANGES_MAX,
    EnvelopeRules,
    check_envelope,
    from_us,
    semantics_message,
    semantics_of,
    set_us,
    to_us,
)

RULES = EnvelopeRules(content_bytes_max=100, raw_bytes_max=50)
SERVICE = EnvelopeRules(content_bytes_max=100, raw_bytes_max=50, service=True)


def change(**fields: object) -> types_pb2.FileChange:
    return types_pb2.FileChange(**{"kind": 1, "path": "/a/b.json", **fields})  # type: ignore[arg-type]


def envelope(*changes: types_pb2.FileChange, **fields: object) -> types_pb2.Envelope:
    return types_pb2.Envelope(**{"workspace_id": "w", "provider": "crm", "changes": changes, **fields})  # type: ignore[arg-type]


def problems(message: types_pb2.Envelope, rules: EnvelopeRules = RULES, name: str = "envelope") -> dict[str, str]:
    refused = check_envelope(message, rules, name)
    return {} if refused is None else {each.field: each.description for each in refused.violations}


def test_a_full_envelope_is_accepted() -> None:
    full = change(
        provider_object_id="deal/1",
        occurred_at=from_us(1_700_000_000_000_000),
        content=b"x" * 100,
        content_type="text/plain",
        semantics=types_pb2.Semantics(properties={"a": "b"}, relations=["/x"]),
        operation_id="01ARZ3NDEKTSV4RRFFQ69G5FAV",
    )
    message = envelope(
        full,
        change(kind=2),
        change(kind=3, path="relative/is/fine/"),
        change(kind=4, path="", provider_object_id="issue/42"),
        delivery_id="d",
        correlation_id="c",
        traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
        headers={"x-event": "y"},
        event_name="deal.changed",
    )
    assert problems(message) == {}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/a/../b", "has a segment that is . or .."),
        ("..", "has a segment that is . or .."),
        ("/a\x00b", "contains a NUL"),
        ("/a//b", "has an empty segment"),
        ("/", "is the root itself"),
        ("/a\\b", "contains a backslash"),
        ("/" + "x" * 1025, "has a segment of more than 1024 bytes"),
        ("", "is required where provider_object_id is empty"),
    ],
)
def test_a_bad_path_is_named(path: str, why: str) -> None:
    assert problems(envelope(change(), change(path=path)), name="envelopes[3]") == {"envelopes[3].changes[1].path": why}


def test_each_field_has_its_violation() -> None:
    message = envelope(
        change(kind=0, content=b"x" * 101),
        change(kind=9),
        change(kind=2, content=b"x"),
        change(provider_object_id="no-type"),
        change(provider_object_id="t/" + "x" * 511),
        change(occurred_at=Timestamp(seconds=-1)),
        change(content_type="a\nb"),
        change(semantics=types_pb2.Semantics(comments=["x"] * 1001)),
        change(content_follows_bytes=5),
        workspace_id="a/b",
        provider="GitHub",
        delivery_id="x" * 257,
        correlation_id="é" * 65,
        traceparent="nonsense",
        envelope_id="0" * 26,
        received_at=from_us(5),
    )
    assert set(problems(message)) == {
        "envelope.workspace_id",
        "envelope.provider",
        "envelope.delivery_id",
        "envelope.correlation_id",
        "envelope.traceparent",
        "envelope.envelope_id",
        "envelope.received_at",
        "envelope.changes[0].kind",
        "envelope.changes[0].content",
        "envelope.changes[1].kind",
        "envelope.changes[2].content",
        "envelope.changes[3].provider_object_id",
        "envelope.changes[4].provider_object_id",
        "envelope.changes[5].occurred_at",
        "envelope.changes[6].content_type",
        "envelope.changes[7].semantics",
        "envelope.changes[8].content_follows_bytes",
    }


def test_the_first_twenty_are_shown_and_all_are_counted() -> None:
    refused = check_envelope(envelope(*(change(path="/a/../b") for _ in range(50))), RULES)
    assert refused is not None
    assert (len(refused.violations), refused.total) == (20, 50)
    assert refused.violations[19].field == "envelope.changes[19].path"


def test_too_many_changes() -> None:
    assert problems(envelope(*([change()] * (CHANGES_MAX + 1)))) == {
        "envelope.changes": "has 10001 entries; at most 10000 are accepted"
    }


def test_only_a_service_may_name_the_workspace_of_an_app() -> None:
    message = envelope(change(), workspace_id="_app/crm")
    assert problems(message).keys() == {"envelope.workspace_id"}
    assert problems(message, SERVICE) == {}
    assert problems(envelope(change(), workspace_id="_app/.."), SERVICE).keys() == {"envelope.workspace_id"}


def test_a_service_may_say_id_and_receive_time() -> None:
    message = envelope(change(), envelope_id="01ARZ3NDEKTSV4RRFFQ69G5FAV", received_at=from_us(5))
    assert problems(message, SERVICE) == {}
    message.envelope_id = "short"
    assert set(problems(message, SERVICE)) == {"envelope.envelope_id"}


def test_a_failed_delivery() -> None:
    failure = types_pb2.Failure(reason="MALFORMED_JSON", message="m")
    raw = types_pb2.RawDelivery(body=b"x" * 50, headers={"content-type": "x"})
    assert problems(envelope(failure=failure, raw=raw)) == {}
    assert set(problems(envelope(raw=raw))) == {"envelope.raw"}
    assert set(problems(envelope(change(), failure=failure))) == {"envelope.changes"}
    bad = types_pb2.RawDelivery(body=b"x" * 51, headers={"x-hub-signature-256": "x"}, body_follows_bytes=3)
    assert set(problems(envelope(failure=types_pb2.Failure(reason="no", message="x" * 1001), raw=bad))) == {
        "envelope.failure.reason",
        "envelope.failure.message",
        "envelope.raw.body",
        "envelope.raw.body_follows_bytes",
        "envelope.raw.headers['x-hub-signature-256']",
    }


@pytest.mark.parametrize("name", ["authorization", "cookie", "x-hub-signature-256", "x-gitlab-token", "X-Upper", "a b"])
def test_no_credential_is_stored(name: str) -> None:
    assert set(problems(envelope(headers={name: "v"}))) == {f"envelope.headers[{name!r}]"}


def test_times_are_microseconds() -> None:
    for us in (0, 1, 1_700_000_000_123_456):
        message = types_pb2.Envelope()
        set_us(message.received_at, us)
        assert to_us(message.received_at) == to_us(from_us(us)) == us
    assert to_us(Timestamp(seconds=1, nanos=1_999)) == 1_000_001


def test_semantics_are_canonical() -> None:
    message = types_pb2.Semantics(
        properties={" b ": " 2 ", "a": "1", "c": "  "}, relations=["/y", " /x", "/y"], comments=["", " "]
    )
    semantics = semantics_of(message)
    assert semantics == Semantics(properties={"a": "1", "b": "2"}, relations=("/x", "/y"))
    assert semantics_of(semantics_message(semantics)) == semantics
    assert not semantics_of(types_pb2.Semantics(properties={"c": " "}))


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (f"00-{'a' * 32}-{'b' * 16}-01", True),
        (f"00-{'0' * 32}-{'b' * 16}-01", False),
        (f"00-{'a' * 32}-{'0' * 16}-01", False),
        (f"ff-{'a' * 32}-{'b' * 16}-01", False),
        (f"00-{'A' * 32}-{'b' * 16}-01", False),
        ("", True),
    ],
)
def test_trace_context(text: str, valid: bool) -> None:
    assert ("envelope.traceparent" not in problems(envelope(traceparent=text))) is valid
