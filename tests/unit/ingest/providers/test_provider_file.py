from pathlib import Path

import pytest

from relayfile.errors import StartRefused
from relayfile.ingest.providers.adapter import Provider, RequestFacts
from relayfile.ingest.providers.provider_file import parse_provider
from relayfile.ingest.providers.registry import ProviderRegistry

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
    ((delivery, _, _),) = provider.normalise(
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
    ((delivery, _, _),) = provider.normalise(RequestFacts({}, body))
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
    ((delivery, _, _),) = Provider(parse_provider(GOOD, "shop.toml"), 1000).normalise(RequestFacts({}, body))
    assert not delivery.changes
    assert delivery.failure.reason == reason


@pytest.mark.parametrize("body", [b'{"type": "order", "what": "seen"}', b'{"type": "refund", "what": "new"}'])
def test_ignored_and_unknown_events_change_nothing(body: bytes) -> None:
    ((delivery, _, _),) = Provider(parse_provider(GOOD, "shop.toml"), 1000).normalise(RequestFacts({}, body))
    assert (list(delivery.changes), delivery.HasField("failure")) == ([], False)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('name = "shop"', 'name = "Shop!"', "shop.toml:2: name must have 1 to 64"),
        ('version = "3"', "", "shop.toml: version is missing"),
        ('version = "3"', "version = 3", "shop.toml:3: version must be a text"),
        ('version = "3"', 'version = "3"\nfunction = "f"', "shop.toml:4: function must be one of"),
        ("[signature]", "[signatur]", "shop.toml: signature is missing"),
        ('header = "X-Sign"', 'spelled = 1\nheader = "X"', "shop.toml:5: signature.spelled is not a key"),
        ('header = "X-Sign"', "", "shop.toml:4: signature.header is missing"),
        (
            'header = "X-Sign"',
            'header = "X"\nsigned = "{timestamp}{body}"',
            "toml:6: signature.signed names {timestamp}",
        ),
        ('header = "X-Sign"', 'header = "X"\nsigned = "{url}"', "toml:6: signature.signed must name {body}"),
        (
            'header = "X-Sign"',
            'header = "X"\nencoding = "hax"',
            "toml:6: signature.encoding must be one of hex, base64",
        ),
        ('header = "X-Sign"', 'header = "X"\nbody_time = "a["', "toml:6: signature.body_time cannot be read from"),
        ("[delivery]", '[challenge]\nanswer = "a"\n[delivery]', "shop.toml:6: challenge.events is missing"),
        ("[delivery]", '[challenge]\nevents = ["a"]\n[delivery]', "shop.toml:6: challenge.answer is missing"),
        ("[delivery]", "[handshake]\n[delivery]", "shop.toml:6: handshake.header or secret must be there"),
        ('id = "id"', 'id = "id["', "shop.toml:7: delivery.id cannot be read from character 3"),
        ('id = "id"', 'id = "{id"', "shop.toml:7: delivery.id has a brace without its partner"),
        ('id = "id"', 'items = "a[0]"', "shop.toml:7: delivery.items must be @ or"),
        (
            'id = "id"',
            'items = "@"\nid_headers = ["x-id"]',
            "shop.toml:8: delivery.id_headers are of the whole request",
        ),
        ('id = "id"', 'id_headers = ["x-token-id"]', "toml:7: delivery.id_headers names 'x-token-id', which may carry"),
        ('id = "id"', 'kept_headers = ["cookie"]', "toml:7: delivery.kept_headers names 'cookie', which may carry"),
        ('folder = "shop"', 'folder = "shap"', "shop.toml:16: rules[0].folder names 'shap'"),
        ('id = "{order.id}"', 'id = "fixed"', "shop.toml:15: rules[0].id has no expression"),
        ('object = "order"', 'object = "Order/x"', "shop.toml:14: rules[0].object must be a type"),
        (
            'path = "orders/{order.id}.json"',
            'path = "../{order.id}"',
            ":17: rules[0].path has a segment that is . or ..",
        ),
        ('path = "orders/{order.id}.json"', 'path = "{order.id"', "shop.toml:17: rules[0].path has a brace"),
        ('delete = ["gone"]', 'delete = ["part"]', "shop.toml:22: rules[0].patch names 'part', which delete names too"),
        ('delete = ["gone"]', 'signal = ["part"]', "toml:21: rules[0].signal names 'part', which patch names too"),
        ('time_format = "unix-milliseconds"', 'time_format = "x"', ":20: rules[0].time_format must be one of iso-8601"),
        ('paid = "order.paid"', 'paid = "order."', "shop.toml:24: rules[0].properties.paid is not complete"),
        ('"/all"]', '"/a{ll"]', "shop.toml:25: rules[0].relations has a brace"),
        ('events = ["order"]', 'evnts = ["order"]', "shop.toml:13: rules[0].evnts is not a key"),
        ('events = ["order"]', "events = []", "shop.toml:13: rules[0].events is missing"),
        (
            'name = "shop"',
            'name = "shop"\nignored_events = ["order"]',
            "toml:14: rules[0].events names 'order', which ign",
        ),
        (
            'name = "shop"',
            'name = "shop"\nlost_events = ["order"]',
            "toml:14: rules[0].events names 'order', which lost",
        ),
        ("[delivery]", "[delivery", "shop.toml: Expected"),
    ],
)
def test_a_broken_file_is_refused_with_its_reason(old: str, new: str, why: str) -> None:
    assert old in GOOD
    assert why in refusal(GOOD.replace(old, new))


SECOND_RULE = """
[[rules]]
events = ["customer"]
object = "customer"
id = "{customer.id}"
path = "/shop/{customer.id"
[rules.content]
name = "customer."
"""


def test_the_line_is_that_of_the_rule_that_is_meant() -> None:
    text = GOOD + SECOND_RULE
    line = text[: text.index("/shop/{customer.id")].count("\n") + 1
    assert f"shop.toml:{line}: rules[1].path has a brace" in refusal(text)
    text = text.replace('{customer.id"', '{customer.id}"')
    line = text[: text.index('"customer."')].count("\n") + 1
    assert f"shop.toml:{line}: rules[1].content.name is not complete" in refusal(text)


def test_of_several_signatures_each_has_its_own_header() -> None:
    two = GOOD.replace("[signature]", "[[signature]]").replace("[delivery]", '[[signature]]\nheader = "{}"\n[delivery]')
    definition = parse_provider(two.replace("{}", "X-Old", 1), "shop.toml")
    assert [scheme.header for scheme in definition.proof.schemes] == ["x-sign", "x-old"]
    assert "shop.toml:7: signature[1].algorithm must be one of" in refusal(
        two.replace('header = "{}"', 'algorithm = "md5"\nheader = "x"')
    )
    assert "signature names a header twice" in refusal(two.replace("{}", "x-sign", 1))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(StartRefused, match=r"shop\.toml cannot be read: 'utf-8'"):
        ProviderRegistry.load(1000, tmp_path)


def test_the_directory_of_provider_files(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text(GOOD)
    assert set(ProviderRegistry.load(1000, tmp_path)) == {*ProviderRegistry.load(1000), "shop"}
    (tmp_path / "other.toml").write_text(GOOD)
    with pytest.raises(StartRefused, match=r"other\.toml"):
        ProviderRegistry.load(1000, tmp_path)
    with pytest.raises(StartRefused, match="does not exist"):
        ProviderRegistry.load(1000, tmp_path / "missing")


def test_a_file_of_the_directory_replaces_that_of_the_package(tmp_path: Path) -> None:
    (tmp_path / "github.toml").write_text(GOOD.replace('"shop"', '"github"', 1))
    assert ProviderRegistry.load(1000, tmp_path)["github"].adapter_version == "github/3"
