"""Forwarding a dead letter of an app: where the store's route leads now, under the ids and times that it had."""

import json
from dataclasses import dataclass, field

import pytest

from relayfile.errors import Overloaded, RelayfileError, Unavailable
from relayfile.ingest.apps.app_redo import AppRedo
from relayfile.ingest.apps.apps import Apps
from relayfile.ingest.providers.adapter import RequestFacts
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.redo_worker import RedoPostponed
from relayfile.settings.apps import parse_apps
from relayfile.v1 import shard_pb2
from tests.unit.ingest.front import FakeIntake

PROVIDERS = ProviderRegistry.load(100_000)
APPS = Apps.load(parse_apps('{"gh": {"provider": "github", "tenant": "installation.id"}}'), PROVIDERS)
LABEL = {
    "action": "created",
    "label": {"id": 7, "name": "bug"},
    "repository": {"id": 1, "name": "r", "owner": {"login": "o"}},
    "installation": {"id": 77},
}


@dataclass
class Routes:
    known: dict[tuple[str, str], str] = field(default_factory=lambda: {("gh", "77"): "acme"})
    failure: RelayfileError | None = None

    async def workspace_of(self, app: str, tenant: str) -> str | None:
        if self.failure is not None:
            raise self.failure
        return self.known.get((app, tenant))


def redo(**changes: str) -> shard_pb2.Redo:
    made = shard_pb2.Redo(
        workspace_id="_app/gh",
        provider="github",
        delivery_id="d-1",
        envelope_id="E-1",
        received_unix_us=1_800_000_000_000_000,
        correlation_id="c-1",
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        reason="UNROUTED",
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def facts(document: object = LABEL, event: str = "label") -> RequestFacts:
    headers = {"x-github-event": event, "x-github-delivery": "d-1", "x-relayfile-tenant": "77"}
    return RequestFacts(headers, json.dumps(document).encode())


def forwarding(intake: FakeIntake, routes: Routes | None = None) -> AppRedo:
    return AppRedo(APPS, PROVIDERS, routes or Routes(), intake, iter("abc").__next__)


async def test_it_keeps_its_ids_and_times(intake: FakeIntake) -> None:
    assert await forwarding(intake).forward(redo(), facts()) is None
    [envelope] = intake.accepted
    assert (envelope.workspace_id, envelope.provider) == ("acme", "github")
    assert (envelope.envelope_id, envelope.delivery_id, envelope.correlation_id) == ("E-1", "d-1", "c-1")
    assert envelope.received_at.seconds == 1_800_000_000
    assert envelope.traceparent == redo().traceparent
    assert [change.path for change in envelope.changes] == ["/github/repos/o/r/labels/7.json"]


@pytest.mark.parametrize(
    ("asked", "given", "reason"),
    [
        (redo(), facts({**LABEL, "installation": {"id": 78}}), "UNROUTED"),
        (redo(), facts({**LABEL, "installation": None}), "UNROUTED"),
        (redo(), facts({"installation": {"id": 77}, "action": "created"}), "UNEXPECTED_SHAPE"),
        (redo(), RequestFacts({"x-github-event": "label"}, b"{"), "MALFORMED_JSON"),
    ],
)
async def test_why_it_stays(intake: FakeIntake, asked: shard_pb2.Redo, given: RequestFacts, reason: str) -> None:
    failure = await forwarding(intake).forward(asked, given)
    assert failure is not None
    assert failure.reason == reason
    assert intake.accepted == []


async def test_what_is_ignored_now_goes(intake: FakeIntake) -> None:
    assert await forwarding(intake).forward(redo(), facts({"zen": "z"}, "ping")) is None
    assert intake.calls == 0


@pytest.mark.parametrize("changed", [{"workspace_id": "_app/other"}, {"provider": "gitlab"}])
async def test_an_app_that_is_not_known_here_is_for_others(intake: FakeIntake, changed: dict[str, str]) -> None:
    with pytest.raises(RedoPostponed):
        await forwarding(intake).forward(redo(**changed), facts())


@pytest.mark.parametrize("where", ["routes", "intake"])
async def test_trouble_of_others_only_delays_it(intake: FakeIntake, where: str) -> None:
    routes = Routes()
    if where == "routes":
        routes.failure = Unavailable(what="store")
    else:
        intake.failure = Overloaded(what="share", retry_after_s=1.0)
    with pytest.raises(RedoPostponed):
        await forwarding(intake, routes).forward(redo(), facts())


@pytest.fixture
def intake() -> FakeIntake:
    return FakeIntake()
