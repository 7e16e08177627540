"""`split`: the action is the last part of the event."""

import json

import pytest

from relayfile.errors import StartRefused
from relayfile.ingest.providers.adapter import Provider, RequestFacts
from relayfile.ingest.providers.provider_file import parse_provider

FILE = """
name = "split"
version = "1"
[signature]
header = "X-Sign"
[delivery]
event = "type"
split = "."
[[rules]]
events = ["customer"]
object = "customer"
id = "{id}"
path = "/split/customers/{id}.json"
delete = ["deleted"]
[[rules]]
events = ["customer.source"]
object = "source"
id = "{id}"
path = "/split/sources/{id}.json"
"""


@pytest.mark.parametrize(
    ("event", "path", "kind"),
    [
        ("customer.created", "/split/customers/1.json", 1),
        ("customer.deleted", "/split/customers/1.json", 2),
        ("customer.source.deleted", "/split/sources/1.json", 1),
        ("customer", "/split/customers/1.json", 1),
        (".customer", None, 0),
        ("customer.source.card.created", None, 0),
    ],
)
def test_the_last_part_is_the_action(event: str, path: str | None, kind: int) -> None:
    provider = Provider(parse_provider(FILE, "split.toml"), 1_000)
    body = json.dumps({"type": event, "id": 1}).encode()
    ((envelope, _, _),) = provider.normalise(RequestFacts({}, body))
    assert envelope.event_name == event
    assert [(change.path, change.kind) for change in envelope.changes] == ([(path, kind)] if path else [])


def test_an_action_cannot_be_said_twice() -> None:
    with pytest.raises(StartRefused, match="split"):
        parse_provider(FILE.replace('split = "."', 'split = "."\naction = "what"'), "split.toml")
