"""The tenant expressions that docs/providers/apps.md recommends, held to the providers' own fixtures."""

import json
import re
from pathlib import Path

import pytest

from relayfile.ingest.apps.apps import App, Apps
from relayfile.ingest.providers.adapter import RequestFacts
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.settings import AppDefinition

ROOT = Path(__file__).resolve().parents[4]
FIXTURES = ROOT / "tests" / "fixtures" / "providers"
PROVIDERS = ProviderRegistry.load(1_000_000)
TABLE = dict(
    re.findall(r"^\| (\w+)[^|]*\| `([^`]+)` \|$", (ROOT / "docs" / "providers" / "apps.md").read_text(), re.MULTILINE)
)
WITHOUT = {
    "slack": {"url_verification"},
    # Of the account itself, not of one that is connected to it.
    "stripe": {
        path.stem
        for path in (FIXTURES / "stripe").glob("*.json")
        if "account" not in json.loads(path.read_text())["body"]
    },
    "notion": {"handshake"},
}


def app(provider: str) -> App:
    return Apps.load([AppDefinition("app", provider, TABLE[provider])], PROVIDERS)["app"]


def test_the_table_names_providers_that_there_are() -> None:
    assert {"github", "slack", "linear", "hubspot", "intercom", "notion", "stripe", "shopify"} <= TABLE.keys()
    assert not TABLE.keys() - PROVIDERS.keys()


@pytest.mark.parametrize(
    "path",
    [path for provider in sorted(TABLE) for path in sorted((FIXTURES / provider).glob("*.json"))],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_delivery_names_its_customer(path: Path) -> None:
    provider = path.parent.name
    fixture = json.loads(path.read_text())
    headers = {name.lower(): value for name, value in fixture["headers"].items()}
    reading = PROVIDERS[provider].read(RequestFacts(headers, json.dumps(fixture["body"]).encode()))
    tenants = [
        app(provider).tenant_of(delivery.document, reading.headers)
        for delivery in PROVIDERS[provider].deliveries(reading)
    ]
    assert all(tenants) is (path.stem not in WITHOUT.get(provider, set())), tenants
