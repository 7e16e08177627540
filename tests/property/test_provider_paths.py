"""No path, object id or relation of any provider of the package leaves its place, whatever stands in a payload.

Every rule of every file meets hostile values in every identifier that it names: as the file compiles it, and through a
whole request where the provider has no function of its own.
"""

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relayfile.ingest.providers.adapter import Provider, RequestFacts
from relayfile.ingest.providers.definition import BodyForm, Rule
from relayfile.ingest.providers.provider_file import parse_provider
from relayfile.ingest.providers.registry import BUILT_IN, ProviderRegistry
from relayfile.paths import ACCESS_MARKER, PATH_BYTES_MAX, check_write_path, name
from relayfile.pinned_json import JsonValue
from relayfile.wire import EnvelopeRules, check_envelope

PROVIDERS = ProviderRegistry.load(100_000)
ENVELOPES = EnvelopeRules(100_000, 100_000)
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
STEP = re.compile(r'"([^"]+)"|([A-Za-z_][A-Za-z0-9_]*)|\[(-?[0-9]+)\]')
HOSTILE: list[JsonValue] = [
    "",
    " ",
    ".",
    "..",
    "...",
    "/",
    "//",
    "a/b",
    "../../etc/passwd",
    "..%2f..%2f",
    "%2e%2e",
    "\\..\\",
    "\x00",
    "a\nb",
    "\x7f\x85",
    "\ud800",
    ":",
    "~",
    ACCESS_MARKER,
    "x" * 2000,
    "/" * 2000,
    "é" * 2000,
    "𝄞" * 700,
    0,
    -1,
    10**40,
    1.5,
    True,
    False,
    None,
    [],
    ["a"],
    {},
    {"id": 1},
]
hostile = st.sampled_from(HOSTILE) | st.text(max_size=30) | st.text(alphabet="./\\%:~\x00\n", max_size=30)


class Case(NamedTuple):
    """One rule of a file, as it is written and as it is compiled."""

    provider: str
    event: str
    rule: Rule
    path: str
    """The template with its folder."""
    object_type: str
    relations: list[str]
    """Templates with their folder."""
    expressions: list[str]
    """All that its path, its id and its relations take from a payload."""


def cases() -> Iterator[Case]:
    """Every rule of every provider file of the package."""
    for file in sorted(BUILT_IN.glob("*.toml")):
        text = file.read_text()
        raw, compiled = tomllib.loads(text), parse_provider(text, file.name)
        seen: dict[str, int] = {}
        for written in raw.get("rules", []):
            event = written["events"][0]
            rule = compiled.rules[event][seen.get(event, 0)]
            for each in written["events"]:
                seen[each] = seen.get(each, 0) + 1
            before = raw.get("folders", {}).get(written.get("folder", ""), "").rstrip("/")
            path, *relations = (
                template if template.startswith("/") else f"{before}/{template}"
                for template in [written["path"], *written.get("relations", [])]
            )
            expressions = PLACEHOLDER.findall(" ".join([path, *relations, written["id"]]))
            yield Case(file.stem, event, rule, path, written["object"], relations, expressions)


def steps_of(expression: str) -> list[str | int]:
    """The way to what the first alternative of ``expression`` finds."""
    found = STEP.findall(expression.split("||", maxsplit=1)[0])
    return [int(index) if index else quoted or field for quoted, field, index in found]


def put(document: dict[str, JsonValue], steps: list[str | int], value: JsonValue) -> None:
    """Make ``value`` what is found at ``steps``, unless something else has that place."""
    place: JsonValue = document
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        empty: JsonValue = copy.deepcopy(value) if following is None else [] if isinstance(following, int) else {}
        if isinstance(place, dict) and isinstance(step, str):
            place = place.setdefault(step, empty)
        elif isinstance(place, list) and isinstance(step, int):
            if not place:
                place.append(empty)
            place = place[0]
        else:
            return


def document_of(case: Case, values: list[JsonValue]) -> dict[str, JsonValue]:
    """A payload in which the n-th expression finds the n-th value, and the last value from there on.

    Short ways first: where one is the beginning of another (`channel`, `channel.id || channel`), both find it.
    """
    document: dict[str, JsonValue] = {}
    ways = [(steps_of(expression), position) for position, expression in enumerate(case.expressions)]
    for steps, position in sorted(ways, key=lambda way: len(way[0])):
        put(document, steps, values[min(position, len(values) - 1)])
    return document


def assert_in_place(path: str, template: str) -> None:
    """A file may be there, it is as deep as the template, and every literal part of it stands where it is written."""
    assert check_write_path(path) is None, path
    assert len(path.encode()) <= PATH_BYTES_MAX
    written, found = template.split("/"), path.split("/")
    assert len(found) == len(written), path
    for part, segment in zip(written, found, strict=True):
        pattern = ".+".join(re.escape(piece) for piece in PLACEHOLDER.split(part)[0::2])
        assert re.fullmatch(pattern, segment, re.DOTALL), path
        assert segment not in (".", "..")
    assert name(path) != ACCESS_MARKER


CASES = list(cases())
every_provider = pytest.mark.parametrize(
    "provider", sorted(name for name, each in PROVIDERS.items() if each.definition.form is BodyForm.EVENT)
)


def rules_of(provider: str) -> list[Case]:
    found = [case for case in CASES if case.provider == provider]
    assert found, f"{provider} has no rules"
    return found


@every_provider
def test_good_identifiers_make_the_path_that_is_written(provider: str) -> None:
    for case in rules_of(provider):
        assert "{" in case.path, f"{case.path} has no identifier"
        assert case.path.startswith(f"/{provider}/")
        document = document_of(case, ["good"])
        assert case.rule.path(document) == PLACEHOLDER.sub("good", case.path)
        assert (case.rule.object_id(document) or "").startswith(f"{case.object_type}/")
        assert [relation(document) for relation in case.rule.relations] == [
            PLACEHOLDER.sub("good", template) for template in case.relations
        ]


@every_provider
def test_a_hostile_identifier_stays_in_its_place(provider: str) -> None:
    for case in rules_of(provider):
        made = [check(case, [value]) for value in HOSTILE]
        assert sum(made) >= 20, f"{case.path}: most of these values are texts, and make a path"


@given(st.sampled_from(CASES), st.lists(hostile, min_size=1, max_size=4))
@example(CASES[0], ["..", "/"])
def test_hostile_identifiers_together_stay_in_their_places(case: Case, values: list[JsonValue]) -> None:
    check(case, values)


def check(case: Case, values: list[JsonValue]) -> bool:
    """Whether there is a path at all; that all is in its place is asserted."""
    document = document_of(case, values)
    path, object_id = case.rule.path(document), case.rule.object_id(document)
    if path is not None:
        assert_in_place(path, case.path)
    if object_id is not None:
        object_type, _, identity = object_id.partition("/")
        assert object_type == case.object_type
        assert identity
        assert not re.search(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]", identity)
    for relation, template in zip(case.rule.relations, case.relations, strict=True):
        related = relation(document)
        if related is not None and "{" in template:
            assert_in_place(related, template)
    provider = PROVIDERS[case.provider]
    if provider.definition.shape is None:
        send(provider, case.event, document)
    return path is not None


def send(provider: Provider, event: str, document: dict[str, JsonValue]) -> None:
    """The same as a request: what comes of it is what a store accepts, or a failure."""
    delivery = provider.definition.delivery
    headers = {delivery.event_header: event} if delivery.event_header else {}
    for member in ("type", "event", "webhookEvent", "object_kind", "topic"):
        document.setdefault(member, f"{event}{delivery.split}x" if delivery.split else event)
    for made in provider.normalise(RequestFacts(headers, json.dumps(document).encode())):
        made.envelope.workspace_id = "w"
        made.envelope.provider = provider.name
        refused = check_envelope(made.envelope, ENVELOPES)
        assert refused is None, refused
        for change in made.envelope.changes:
            assert change.path.startswith(f"/{provider.name}/")
            assert check_write_path(change.path) is None
