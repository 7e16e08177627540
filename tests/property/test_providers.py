"""Every provider of the package, whichever come: outside bytes never raise, and a dead letter normalises again."""

import contextlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayfile.errors import InvalidArgument
from relayfile.ingest.delivery import Arrival, complete
from relayfile.ingest.providers.adapter import Provider, RequestFacts
from relayfile.ingest.providers.registry import BUILT_IN, ProviderRegistry
from relayfile.ingest.webhooks.signature import Scheme, SignatureRefused, SignedRequest, check_body_time, sign, verify
from relayfile.pinned_json import JsonValue
from relayfile.v1 import types_pb2
from relayfile.wire import EnvelopeRules, check_envelope, may_keep_header

PROVIDERS = ProviderRegistry.load(100_000)
RULES = EnvelopeRules(100_000, 100_000)
FIXTURES = Path(__file__).parents[1] / "fixtures" / "providers"
NOW_US = 1_000_000_000_000_000
URL = "https://hooks.example/v1/workspaces/w/webhooks/p?a=%28b%29"

every_provider = pytest.mark.parametrize("name", sorted(PROVIDERS))
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)


def words(name: str) -> list[str]:
    """What the file of a provider names: events, members and whatever else stands in it."""
    return sorted(set(re.findall(r"[A-Za-z_][A-Za-z_0-9.]*", (BUILT_IN / f"{name}.toml").read_text())))


def documents(name: str) -> st.SearchStrategy[JsonValue]:
    """JSON that goes far into the rules: known members, known events as values, lists where they may be."""
    known = [word for whole in words(name) for word in (whole, *whole.split("."))]
    keys = st.sampled_from(known) | st.text(max_size=5)
    leaves = scalars | st.sampled_from(known)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=6), max_leaves=25
    )


def head(provider: Provider) -> st.SearchStrategy[dict[str, str]]:
    """Headers that it looks at, and others, with any value that a header can have."""
    named = [scheme.header for scheme in provider.definition.proof.schemes]
    named += [*provider.definition.delivery.kept_headers, "cookie", "x-other"]
    return st.dictionaries(st.sampled_from(named), st.text(max_size=40) | st.sampled_from(words(provider.name)))


def mutated(document: JsonValue, path: list[int], value: JsonValue) -> JsonValue:
    """``document`` with the part at ``path`` (of each container the n-th member) replaced."""
    if not path or not isinstance(document, dict | list) or not document:
        return value
    copy: JsonValue
    if isinstance(document, dict):
        key = list(document)[path[0] % len(document)]
        copy = {**document, key: mutated(document[key], path[1:], value)}
    else:
        at = path[0] % len(document)
        copy = [*document[:at], mutated(document[at], path[1:], value), *document[at + 1 :]]
    return copy


def check(provider: Provider, facts: RequestFacts) -> None:
    """Each delivery is what a front accepts, and the same again from what a dead letter keeps of the head."""
    made = provider.normalise(facts)
    assert made
    assert provider.normalise(RequestFacts(provider.kept_headers(facts.headers), facts.body)) == made
    provider.challenge_answer(provider.read(facts))
    provider.handshake_secret(facts)
    for delivery in made:
        envelope = types_pb2.Envelope()
        envelope.CopyFrom(delivery.envelope)
        failed = envelope.HasField("failure")
        assert bool(delivery.raw or not facts.body) >= failed
        assert not (failed and envelope.changes)
        assert envelope.adapter_version == provider.adapter_version
        envelope.workspace_id = "w"
        envelope.provider = envelope.provider or provider.name
        refused = check_envelope(envelope, RULES)
        assert refused is None, refused
        if failed:
            (again,) = provider.normalise(RequestFacts(provider.kept_headers(facts.headers), delivery.raw))
            assert again.envelope == delivery.envelope
        with contextlib.suppress(InvalidArgument):  # changes of one object that no one change equals
            complete(envelope, Arrival(1), lambda: "01J00000000000000000000000")


@every_provider
@settings(max_examples=40)
@given(data=st.data())
def test_any_bytes_are_deliveries_or_failures(name: str, data: st.DataObject) -> None:
    provider = PROVIDERS[name]
    check(provider, RequestFacts(data.draw(head(provider)), data.draw(st.binary(max_size=80))))


@every_provider
@settings(max_examples=40)
@given(data=st.data())
def test_any_json_is_deliveries_or_failures(name: str, data: st.DataObject) -> None:
    provider = PROVIDERS[name]
    body = json.dumps(data.draw(documents(name))).encode()
    check(provider, RequestFacts(data.draw(head(provider)), body))


REAL = [(path.parent.name, path) for path in sorted(FIXTURES.glob("*/*.json"))]


@pytest.mark.parametrize(("name", "path"), REAL, ids=[f"{name}-{path.stem}" for name, path in REAL])
@settings(max_examples=8)
@given(at=st.lists(st.integers(0, 30), max_size=6), value=st.none() | st.integers() | st.text(max_size=5) | st.just({}))
def test_a_real_event_with_anything_wrong_in_it(name: str, path: Path, at: list[int], value: JsonValue) -> None:
    fixture = json.loads(path.read_bytes())
    headers = {header.lower(): text for header, text in fixture["headers"].items()}
    check(PROVIDERS[name], RequestFacts(headers, json.dumps(fixture["body"]).encode()))
    check(PROVIDERS[name], RequestFacts(headers, json.dumps(mutated(fixture["body"], at, value)).encode()))


@every_provider
def test_no_credential_is_kept(name: str) -> None:
    provider = PROVIDERS[name]
    assert all(may_keep_header(header) for header in provider.definition.delivery.kept_headers)


def signed(scheme: Scheme, body: bytes, secret: str) -> SignedRequest:
    time = str(round(NOW_US / 1_000_000 / scheme.timestamp_unit_s))
    headers = {scheme.id_header: "m", scheme.timestamp_header: time}
    request = SignedRequest(headers, body, "POST", URL)
    headers[scheme.header] = sign(scheme, request, secret, time)
    return request


@every_provider
@settings(max_examples=40)
@given(
    body=st.binary(min_size=1, max_size=60),
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    position=st.integers(0, 99),
)
def test_what_was_signed_verifies_and_nothing_else(name: str, body: bytes, secret: str, position: int) -> None:
    for scheme in PROVIDERS[name].definition.proof.schemes:
        request = signed(scheme, body, secret)
        assert PROVIDERS[name].scheme_for(request.headers) is not None
        verify(scheme, request, ["other", secret], NOW_US)
        with pytest.raises(SignatureRefused, match="SIGNATURE_MISMATCH"):
            verify(scheme, request, ["another", f"{secret}x"], NOW_US)
        if not scheme.is_token:
            at = position % len(body)
            changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
            with pytest.raises(SignatureRefused, match="SIGNATURE_MISMATCH"):
                verify(scheme, SignedRequest(request.headers, changed, "POST", URL), [secret], NOW_US)
        if scheme.is_timed:
            with pytest.raises(SignatureRefused, match="TIMESTAMP_STALE"):
                verify(scheme, request, [secret], NOW_US + 301_000_000)


@every_provider
@settings(max_examples=40)
@given(data=st.data())
def test_no_forged_request_verifies(name: str, data: st.DataObject) -> None:
    schemes = PROVIDERS[name].definition.proof.schemes
    named = sorted({each for scheme in schemes for each in (scheme.header, scheme.timestamp_header, scheme.id_header)})
    values = st.text(max_size=90) | st.sampled_from(["v0=" + "0" * 64, "1000000000", "1000000000000"])
    headers = data.draw(st.dictionaries(st.sampled_from([*named, "x-other"]), values))
    body, document = data.draw(st.binary(max_size=50)), data.draw(documents(name))
    for scheme in schemes:
        with pytest.raises(SignatureRefused):
            verify(scheme, SignedRequest(headers, body, "POST", URL), ["a secret that nobody guesses"], NOW_US)
        with contextlib.suppress(SignatureRefused):
            check_body_time(scheme, document, NOW_US)
