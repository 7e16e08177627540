"""Asana's rules. What is expected is written here by hand, not taken from the adapter."""

from typing import Final

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks.signature import SignedRequest, sign
from tests.support.provider_fixtures import DELETE, SIGNAL, Made, Outcome, names, outcomes, refusal, request

ASANA: Final = ProviderRegistry.load(1_000_000)["asana"]
TASK: Final = "/asana/tasks/1337.json"
TASK_ID: Final = "resource/1337"

EXPECTED: Final = {
    "events": [
        Outcome(
            "1337:added:2026-02-22T02:06:58.147Z:900",
            "task.added",
            [Made(SIGNAL, TASK, TASK_ID, "2026-02-22T02:06:58.147Z")],
        ),
        Outcome(
            "1337:changed:2026-02-22T02:07:00.000Z:assignee",
            "task.changed",
            [Made(SIGNAL, TASK, TASK_ID, "2026-02-22T02:07:00Z")],
        ),
        Outcome(
            "1337:changed:2026-02-22T02:07:00.000Z:due_on",
            "task.changed",
            [Made(SIGNAL, TASK, TASK_ID, "2026-02-22T02:07:00Z")],
        ),
        Outcome(
            "555:added:2026-02-22T02:07:00.100Z:1337",
            "story.added",
            [Made(SIGNAL, "/asana/stories/555.json", "resource/555", "2026-02-22T02:07:00.100Z")],
        ),
        Outcome(
            "1337:removed:2026-02-22T02:08:00.000Z:901",
            "task.removed",
            [Made(SIGNAL, TASK, TASK_ID, "2026-02-22T02:08:00Z")],
        ),
        Outcome(
            "1337:deleted:2026-02-22T02:09:00.000Z:whole",
            "task.deleted",
            [Made(DELETE, TASK, TASK_ID, "2026-02-22T02:09:00Z")],
        ),
        Outcome(
            "1337:undeleted:2026-02-22T02:10:00.000Z:whole",
            "task.undeleted",
            [Made(SIGNAL, TASK, TASK_ID, "2026-02-22T02:10:00Z")],
        ),
        Outcome("7:changed:2026-02-22T02:10:00.000Z:whole", "hologram.changed"),
        Outcome("", "task.changed", failure="UNEXPECTED_SHAPE"),
    ],
    "heartbeat": [Outcome("", "")],
    "project_deleted": [
        Outcome(
            "900:deleted:2026-02-22T02:06:58.147Z:whole",
            "project.deleted",
            [Made(DELETE, "/asana/projects/900.json", "resource/900", "2026-02-22T02:06:58.147Z")],
        )
    ],
    "irregular_names": [
        Outcome(
            "61:changed:2026-02-22T02:06:58.147Z:whole",
            "time_tracking_entry.changed",
            [Made(SIGNAL, "/asana/time_tracking_entries/61.json", "resource/61", "2026-02-22T02:06:58.147Z")],
        ),
        Outcome(
            "62:added:2026-02-22T02:06:58.147Z:900",
            "status_update.added",
            [Made(SIGNAL, "/asana/status_updates/62.json", "resource/62", "2026-02-22T02:06:58.147Z")],
        ),
    ],
    "handshake": [Outcome("", "", failure="UNEXPECTED_SHAPE")],
}


def test_every_fixture_has_its_expectation() -> None:
    assert names("asana") == sorted(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_events_become_what_is_written_here(name: str) -> None:
    assert outcomes(ASANA, request("asana", name)) == EXPECTED[name]


def test_the_handshake_brings_the_secret_in_its_header() -> None:
    secret = "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81"
    assert ASANA.handshake_secret(request("asana", "handshake")) == secret
    assert ASANA.handshake is not None
    assert ASANA.handshake.header == "x-hook-secret"
    assert ASANA.handshake_secret(request("asana", "events")) == ""


def test_the_signature_is_over_the_body() -> None:
    body, scheme = request("asana", "events").body, ASANA.scheme
    assert scheme is not None
    headers = {"x-hook-signature": sign(scheme, SignedRequest({}, body), "s")}
    assert refusal(ASANA, headers, body, ["older", "s"]) == ""
    assert refusal(ASANA, headers, body + b" ", ["s"]) == "SIGNATURE_MISMATCH"
