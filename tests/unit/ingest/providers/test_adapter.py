"""What every provider file may ask for beside plain rules: lists, functions, challenges, lost events, kept headers."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import pytest

from relayfile.ingest.providers import provider_file
from relayfile.ingest.providers.adapter import ITEMS_MAX, Provider, RequestFacts
from relayfile.ingest.providers.definition import Unexpected
from relayfile.ingest.providers.provider_file import parse_provider
from relayfile.ingest.webhooks.signature import SignatureRefused, SignedRequest, check_body_time, sign, verify
from relayfile.pinned_json import JsonValue

LIST = """
name = "many"
version = "1"
lost_events = ["overflow"]
[[signature]]
header = "X-New"
body_time = "sent"
timestamp_unit = "ms"
tolerance_s = 60
[[signature]]
header = "X-Old"
type = "token"
[challenge]
events = ["hello"]
answer = "word"
[delivery]
items = "data.events"
id = "{shop}:{number}"
event = "type"
action = "what"
kept_headers = ["content-type"]
[[rules]]
events = ["thing"]
object = "thing"
id = "{id}"
path = "/many/things/{id}.json"
signal = ["touched"]
delete = ["gone"]
"""
NOW_US = 1_800_000_000_000_000


def provider(text: str = LIST) -> Provider:
    return Provider(parse_provider(text, "many.toml"), 1000)


def body(*events: JsonValue) -> bytes:
    return json.dumps({"data": {"events": events}}).encode()


def thing(number: int, **more: JsonValue) -> dict[str, JsonValue]:
    return {"shop": 5, "number": number, "type": "thing", "id": number, **more}


def test_each_element_is_a_delivery_with_its_own_ending() -> None:
    events: list[JsonValue] = [
        thing(1),
        thing(2, what="gone"),
        thing(3, what="touched"),
        {"type": "thing", "number": 4},
        5,
    ]
    found = provider().normalise(RequestFacts({}, body(*events, {**thing(6), "type": "other"})))
    assert [(one.envelope.delivery_id, one.envelope.event_name, one.envelope.failure.reason) for one in found] == [
        ("5:1", "thing", ""),
        ("5:2", "thing.gone", ""),
        ("5:3", "thing.touched", ""),
        ("", "thing", "UNEXPECTED_SHAPE"),
        ("", "", "UNEXPECTED_SHAPE"),
        ("5:6", "other", ""),
    ]
    assert [[change.kind for change in one.envelope.changes] for one in found] == [[1], [2], [4], [], [], []]
    assert [one.document for one in found[:5]] == events
    assert {one.envelope.adapter_version for one in found} == {"many/1"}


def test_of_a_failed_element_that_element_alone_is_kept_and_gives_the_same_again() -> None:
    first, second, third = provider().normalise(
        RequestFacts({}, body(thing(1), {**thing(2), "id": None}, {**thing(3), "id": 3.5}))
    )
    assert first.raw == b""
    assert json.loads(second.raw) == {"data": {"events": [{**thing(2), "id": None}]}}
    (again,) = provider().normalise(RequestFacts({}, second.raw))
    assert (again.envelope, again.document, again.raw) == (second.envelope, second.document, second.raw)
    assert json.loads(third.raw)["data"]["events"][0]["number"] == 3


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"{", "MALFORMED_JSON"),
        (b"[]", "UNEXPECTED_SHAPE"),
        (b'{"data": {"events": {}}}', "UNEXPECTED_SHAPE"),
        (b'{"data": {"events": [%s0]}}' % (b"0," * ITEMS_MAX), "TOO_LARGE"),
    ],
)
def test_a_body_without_a_list_is_one_failure(sent: bytes, reason: str) -> None:
    (delivery,) = provider().normalise(RequestFacts({}, sent))
    assert (delivery.envelope.failure.reason, delivery.raw) == (reason, sent)


def test_an_empty_list_is_ignored() -> None:
    (delivery,) = provider().normalise(RequestFacts({}, body()))
    assert (list(delivery.envelope.changes), delivery.envelope.HasField("failure"), delivery.raw) == ([], False, b"")


def test_an_event_that_says_that_others_were_lost_is_a_failure_with_its_own_reason() -> None:
    (delivery,) = provider().normalise(RequestFacts({}, body({"type": "overflow"})))
    assert delivery.envelope.failure.reason == "EVENTS_LOST"
    assert delivery.raw


def test_the_first_signature_that_is_there_decides_alone() -> None:
    many, sent = provider(), b"{}"
    new, old = many.definition.proof.schemes
    headers = {"x-new": sign(new, SignedRequest({}, sent), "wrong"), "x-old": "secret"}
    assert many.scheme_for(headers) is new
    assert many.scheme_for({"x-old": "secret"}) is old
    assert many.scheme_for({}) is None
    with pytest.raises(SignatureRefused, match="SIGNATURE_MISMATCH"):
        verify(new, SignedRequest(headers, sent), ["secret"], NOW_US)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (NOW_US // 1000, ""),
        (NOW_US // 1000 - 60_000, ""),
        (NOW_US // 1000 + 60_000, ""),
        (NOW_US // 1000 - 60_001, "TIMESTAMP_STALE"),
        (NOW_US // 1000 + 60_001, "TIMESTAMP_STALE"),
        (None, "TIMESTAMP_MISSING"),
        ("1800000000000", "TIMESTAMP_MALFORMED"),
        (True, "TIMESTAMP_MALFORMED"),
        (-1, "TIMESTAMP_MALFORMED"),
        (10**400, "TIMESTAMP_MALFORMED"),
    ],
)
def test_a_time_in_the_body(sent: JsonValue, reason: str) -> None:
    new, old = provider().definition.proof.schemes
    check_body_time(old, {"sent": sent}, NOW_US)
    refusal = pytest.raises(SignatureRefused, match=reason) if reason else nullcontext()
    with refusal:
        check_body_time(new, {"sent": sent}, NOW_US)


def test_a_url_is_signed_as_its_sender_writes_it() -> None:
    text = LIST.replace('body_time = "sent"', 'signed = "{method}{url}{body}"\nurl_decoded = ":/?@"')
    scheme = provider(text).definition.proof.schemes[0]
    plain, encoded = "https://x.example/a?b=c:d/e@f%20g", "https://x.example/a?b=c%3Ad%2fe%40f%20g"
    headers = {"x-new": sign(scheme, SignedRequest({}, b"x", "POST", plain), "secret")}
    verify(scheme, SignedRequest(headers, b"x", "POST", encoded), ["secret"], NOW_US)


@pytest.mark.parametrize(
    ("answer", "document", "expected"),
    [
        ('"word"', {"type": "hello", "word": "w"}, "w"),
        ('{ answer = "word" }', {"type": "hello", "word": "w"}, {"answer": "w"}),
        ('"word"', {"type": "hello"}, None),
        ('"word"', {"type": "hello", "word": 5}, None),
        ('"word"', {"type": "thing", "word": "w"}, None),
        ('"word"', [], None),
    ],
)
def test_a_challenge(answer: str, document: JsonValue, expected: JsonValue) -> None:
    many = provider(LIST.replace('answer = "word"', f"answer = {answer}"))
    assert many.challenge_answer(many.read(RequestFacts({}, json.dumps(document).encode()))) == expected


HANDSHAKE = LIST.replace("[challenge]", "[handshake]\n{}\n[challenge]")


@pytest.mark.parametrize(
    ("finds", "headers", "sent", "secret"),
    [
        ('header = "X-Hook"', {"x-hook": "s3cret"}, b"", "s3cret"),
        ('header = "X-Hook"', {}, b'{"token": "t"}', ""),
        ('secret = "token"', {"x-hook": "s3cret"}, b'{"token": "t"}', "t"),
        ('secret = "token"', {}, b"{", ""),
        ('secret = "token"', {}, b'{"token": {}}', ""),
    ],
)
def test_a_handshake_brings_a_secret(finds: str, headers: dict[str, str], sent: bytes, secret: str) -> None:
    assert provider(HANDSHAKE.replace("{}", finds)).handshake_secret(RequestFacts(headers, sent)) == secret


def split(element: JsonValue, headers: Mapping[str, str]) -> Sequence[JsonValue]:
    """A function as an adapter may have one: two documents of one element."""
    assert isinstance(element, dict)
    if element.get("id") == "bad":
        raise Unexpected("the id is bad")
    if element.get("id") == "bug":
        raise ZeroDivisionError
    return [{"type": "thing", "id": element["id"], "by": headers.get("content-type")}, {"type": "thing", "id": "both"}]


def test_a_function_makes_the_documents_that_rules_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_file, "FUNCTIONS", {"split": split})
    many = provider(LIST.replace('version = "1"', 'version = "1"\nfunction = "split"'))
    good, bad, bug = many.normalise(
        RequestFacts(
            {"content-type": "x", "cookie": "c"}, body(*(thing(1) | {"id": each} for each in ("a", "bad", "bug")))
        )
    )
    assert [change.path for change in good.envelope.changes] == ["/many/things/a.json", "/many/things/both.json"]
    assert json.loads(good.envelope.changes[0].content)["by"] == "x"
    assert (good.envelope.delivery_id, good.document) == ("5:1", thing(1) | {"id": "a"})
    for failed, why in ((bad, "the id is bad"), (bug, "ZeroDivisionError")):
        assert (failed.envelope.failure.reason, list(failed.envelope.changes)) == ("UNEXPECTED_SHAPE", [])
        assert why in failed.envelope.failure.message
