"""Outside bytes meet the parsers of ingest: nothing but the promised results may come out."""

import contextlib
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from relayfile import pinned_json
from relayfile.errors import InvalidArgument
from relayfile.ingest.delivery import Arrival, complete
from relayfile.ingest.providers.adapter import RequestFacts
from relayfile.ingest.providers.expression import ExpressionError, compile_expression
from relayfile.ingest.providers.provider_file import load_provider
from relayfile.ingest.providers.registry import BUILT_IN, ProviderRegistry
from relayfile.ingest.providers.template import compile_template
from relayfile.paths import check_write_path
from relayfile.pinned_json import JsonValue
from relayfile.v1 import types_pb2
from relayfile.wire import EnvelopeRules, check_envelope

PROVIDERS = ProviderRegistry.load(100_000)
RULES = EnvelopeRules(100_000, 100_000)
EVENTS = sorted(load_provider(BUILT_IN / "github.toml").rules)
NAMES = sorted(set(re.findall(r"[a-z_0-9]{2,}", (BUILT_IN / "github.toml").read_text())))

keys = st.sampled_from(NAMES) | st.text(max_size=8)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
values: st.SearchStrategy[JsonValue] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6), max_leaves=30
)
times = st.sampled_from(["2019-05-15T15:20:18Z", "2019-05-15", 1_557_933_618, None, "x"])


@st.composite
def plausible(draw: st.DrawFn) -> JsonValue:
    """An event that goes far into the rules: objects where they are expected, and anything inside them."""
    inner = st.dictionaries(keys, values | times, max_size=4)
    document: dict[str, JsonValue] = draw(st.dictionaries(keys, values, max_size=4))
    document["repository"] = {**draw(inner), "id": 1, "name": draw(st.text(min_size=1)), "owner": {"login": "o"}}
    document["organization"] = {"login": draw(st.text()), "id": draw(scalars)}
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=5)):
        document.setdefault(name, {**draw(inner), "id": draw(scalars), "number": draw(scalars)})
    return document


def assert_acceptable(delivery: types_pb2.Envelope, provider: str) -> None:
    """What a front would make of it is a valid envelope."""
    envelope = types_pb2.Envelope()
    envelope.CopyFrom(delivery)
    envelope.workspace_id = "w"
    envelope.provider = delivery.provider or provider
    assert not (delivery.HasField("failure") and delivery.changes)
    refused = check_envelope(envelope, RULES)
    assert refused is None, refused
    complete(envelope, Arrival(1), lambda: "id")
    for change in envelope.changes:
        assert not change.path or check_write_path(change.path) is None


@given(st.sampled_from(EVENTS), values | plausible())
def test_any_json_is_normalised_or_a_failure(event: str, document: JsonValue) -> None:
    try:
        body = pinned_json.write(document)
    except pinned_json.NotJson:
        body = json.dumps(document).encode(errors="replace")
    for delivery, _, _ in PROVIDERS["github"].normalise(RequestFacts({"x-github-event": event}, body)):
        assert_acceptable(delivery, "github")
    for delivery, _, _ in PROVIDERS["generic"].normalise(RequestFacts({}, body)):
        assert_acceptable(delivery, "crm")


changes = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["upsert", "delete", "patch", "signal", "x"]),
        "path": st.text(max_size=20) | st.sampled_from(["/a", "/b/c"]),
        "object_id": st.text(max_size=10) | st.sampled_from(["t/1", "t/2"]),
        "occurred_at": times,
        "content": values,
        "content_text": st.text(max_size=10),
        "properties": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    },
)


@given(st.lists(changes, max_size=4))
def test_any_generic_envelope_is_complete_or_a_failure(changes: list[dict[str, JsonValue]]) -> None:
    body = json.dumps({"provider": "crm", "changes": changes}).encode()
    for delivery, _, _ in PROVIDERS["generic"].normalise(RequestFacts({}, body)):
        # Not acceptable: changes of one object that no one change equals.
        with contextlib.suppress(InvalidArgument):
            assert_acceptable(delivery, "crm")


@given(st.text(max_size=40) | st.text(alphabet="ab.[]0'\"|@ -", max_size=20), values)
def test_an_expression_compiles_or_is_refused_and_never_raises_later(text: str, document: JsonValue) -> None:
    try:
        expression = compile_expression(text)
    except ExpressionError:
        return
    expression(document)


@given(values)
def test_a_template_makes_a_path_that_may_be_written_and_is_one_step(value: JsonValue) -> None:
    path = compile_template("/x/{v}/{v}.json")({"v": value})
    assert path is None or (check_write_path(path) is None and path.count("/") == 3)


@given(st.text(max_size=20), st.text(max_size=20))
def test_different_values_are_different_segments(one: str, other: str) -> None:
    template = compile_template("/{v}.json")
    assert (template({"v": one}) == template({"v": other})) is (one == other or not (one or other))


@given(values, values, values)
def test_merge_patches_is_merging_twice(target: JsonValue, first: JsonValue, second: JsonValue) -> None:
    try:
        both = pinned_json.merge_patches(first, second)
    except ValueError:
        return
    assert pinned_json.merge(target, both) == pinned_json.merge(pinned_json.merge(target, first), second)


@given(st.binary(max_size=300))
def test_any_message_is_checked(data: bytes) -> None:
    envelope = types_pb2.Envelope()
    try:
        envelope.ParseFromString(data)
    except Exception:
        return
    refused = check_envelope(envelope, RULES)
    assert refused is None or refused.total >= len(refused.violations) > 0
