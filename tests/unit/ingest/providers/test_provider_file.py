from pathlib import Path

import pytest

from relayfile.errors import StartRefused
from relayfile.ingest.providers.adapter import Provider, RequestFacts
from relayfile.ingest.providers.provider_file import parse_provider
from relayfile.ingest.providers.registry import BUILT_IN, ProviderRegistry

GOOD = """
name = "shop"
version = "3"
[signature]
header = "X-Sign"
[delivery]
id = "id"
event = "type"
action = "what"
[folders]
shop = "/shop/{shop}"
[[rules]]
events = ["order"]
object = "order"
id = "{order.id}"
folder = "shop"
path = "orders/{order.id}.json"
content = "order"
time = "order.changed"
time_format = "unix-milliseconds"
delete = ["gone"]
patch = ["part"]
ignore = ["seen"]
properties = { state = "order.state", paid = "order.paid" }
relations = ["customers/{order.customer}.json", "/all"]
"""


def refusal(text: str) -> str:
    with pytest.raises(StartRefused) as raised:
        parse_provider(text, "shop.toml")
    return raised.value.why


def test_rules_make_changes() -> None:
    provider = Provider(parse_provider(GOOD, "shop.toml"), 1000)
    assert provider.adapter_version == "shop/3"
    (delivery,) = provider.normalise(
        RequestFacts(
            {},
            b'{"id": 9, "type": "order", "what": "new", "shop": "s/1", "order":'
            b' {"id": 7, "changed": 5, "state": " open ", "paid": true, "customer": "c"}}',
        )
    )
    (change,) = delivery.changes
    assert (delivery.delivery_id, delivery.event_name, delivery.adapter_version) == ("9", "order.new", "shop/3")
    assert (change.kind, change.path, change.provider_object_id) == (1, "/shop/s%2F1/orders/7.json", "order/7")
    assert change.occurred_at.nanos == 5_000_000
    assert dict(change.semantics.properties) == {"state": "open", "paid": "true"}
    assert list(change.semantics.relations) == ["/shop/s%2F1/customers/c.json", "/all"]
    assert change.content_type == "application/json"


@pytest.mark.parametrize(("what", "kind"), [("gone", 2), ("part", 3), ("other", 1)])
def test_the_action_decides_the_kind(what: str, kind: int) -> None:
    provider = Provider(parse_provider(GOOD, "shop.toml"), 1000)
    body = b'{"type": "order", "what": "%s", "shop": "s", "order": {"id": 7}}' % what.encode()
    (delivery,) = provider.normalise(RequestFacts({}, body))
    (change,) = delivery.changes
    assert change.kind == kind
    assert bool(change.content) is (kind != 2)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "MALFORMED_JSON"),
        (b"[]", "UNEXPECTED_SHAPE"),
        (b"{}", "EVENT_MISSING"),
        (b'{"type": "order"}', "UNEXPECTED_SHAPE"),
        (b'{"type": "order", "shop": "s", "order": {"id": null}}', "UNEXPECTED_SHAPE"),
        (b'{"type": "order", "shop": "s", "order": {"id": 1, "x": "%s"}}' % (b"x" * 1000), "TOO_LARGE"),
        (b'{"type": "order", "shop": "s", "order": {"id": 1, "x": %s%s}}' % (b"[" * 40, b"]" * 40), "TOO_LARGE"),
    ],
)
def test_what_cannot_be_normalised_is_a_failure(body: bytes, reason: str) -> None:
    (delivery,) = Provider(parse_provider(GOOD, "shop.toml"), 1000).normalise(RequestFacts({}, body))
    assert not delivery.changes
    assert delivery.failure.reason == reason


@pytest.mark.parametrize("body", [b'{"type": "order", "what": "seen"}', b'{"type": "refund", "what": "new"}'])
def test_ignored_and_unknown_events_change_nothing(body: bytes) -> None:
    (delivery,) = Provider(parse_provider(GOOD, "shop.toml"), 1000).normalise(RequestFacts({}, body))
    assert (list(delivery.changes), delivery.HasField("failure")) == ([], False)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('name = "shop"', 'name = "Shop!"', "shop.toml: name must have 1 to 64"),
        ('version = "3"', "", "shop.toml: version is missing"),
        ('version = "3"', "version = 3", "shop.toml: version must be a text"),
        ("[signature]", "[signatur]", "shop.toml: signature is missing"),
        ('header = "X-Sign"', 'header = "X-Sign"\nspelled = 1', "signature.spelled is not a key that can stand here"),
        ('header = "X-Sign"', 'header = "X"\nsigned = "{timestamp}{body}"', "signature.signed names {timestamp}"),
        ('header = "X-Sign"', 'header = "X"\nencoding = "hax"', "signature.encoding must be one of hex, base64"),
        ('id = "id"', 'id = "id["', "delivery.id cannot be read from character 3"),
        ('folder = "shop"', 'folder = "shap"', "shop.toml:12: rules[0].folder names 'shap'"),
        ('id = "{order.id}"', 'id = "fixed"', "rules[0].id has no expression"),
        ('object = "order"', 'object = "Order/x"', "rules[0].object must be a type"),
        ('path = "orders/{order.id}.json"', 'path = "../{order.id}"', "rules[0].path has a segment that is . or .."),
        ('path = "orders/{order.id}.json"', 'path = "{order.id"', "rules[0].path has a brace"),
        ('delete = ["gone"]', 'delete = ["part"]', "rules[0].patch names 'part', which delete names too"),
        ('time_format = "unix-milliseconds"', 'time_format = "x"', "rules[0].time_format must be one of iso-8601"),
        ('paid = "order.paid"', 'paid = "order."', "rules[0].properties.paid is not complete"),
        ('events = ["order"]', 'evnts = ["order"]', "rules[0].evnts is not a key"),
        ('name = "shop"', 'name = "shop"\nignored_events = ["order"]', "names 'order', which ignored_events names too"),
        ("[delivery]", "[delivery", "shop.toml: Expected"),
    ],
)
def test_a_broken_file_is_refused_with_its_reason(old: str, new: str, why: str) -> None:
    assert old in GOOD
    assert why in refusal(GOOD.replace(old, new))


def test_the_directory_of_provider_files(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text(GOOD)
    assert set(ProviderRegistry.load(1000, tmp_path)) == {"generic", "github", "shop"}
    (tmp_path / "other.toml").write_text(GOOD)
    with pytest.raises(StartRefused, match=r"other\.toml"):
        ProviderRegistry.load(1000, tmp_path)
    with pytest.raises(StartRefused, match="does not exist"):
        ProviderRegistry.load(1000, tmp_path / "missing")


def test_the_package_has_its_own_files() -> None:
    assert {path.stem for path in BUILT_IN.glob("*.toml")} == {"generic", "github"}
