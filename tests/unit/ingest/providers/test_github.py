"""GitHub's rules against 155 real payloads. What is expected is written here by hand, not taken from the adapter."""

import json
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest

from relayfile.ingest.providers.adapter import RequestFacts
from relayfile.ingest.providers.provider_file import load_provider
from relayfile.ingest.providers.registry import BUILT_IN, ProviderRegistry
from relayfile.paths import check_write_path
from relayfile.v1 import types_pb2

GITHUB = ProviderRegistry.load(16 * 1024 * 1024)["github"]
RULES = load_provider(BUILT_IN / "github.toml")
UPSERT, DELETE, PATCH = 1, 2, 3
HELLO = "/github/repos/Codertocat/Hello-World"

# file (without .payload.json) -> kind, path, object id, provider time
EXPECTED: dict[str, tuple[int, str, str, str | None]] = {
    "issues__opened.with-organization": (UPSERT, f"{HELLO}/issues/1.json", "issue/444500041", "2019-05-15T15:20:18Z"),
    "issues__deleted": (DELETE, f"{HELLO}/issues/1.json", "issue/444500041", "2021-10-11T16:40:56Z"),
    "issue_comment__edited": (
        UPSERT,
        f"{HELLO}/issues/1/comments/492700400.json",
        "issue_comment/492700400",
        "2019-05-15T15:20:22Z",
    ),
    "issue_comment__deleted.with-organization": (
        DELETE,
        f"{HELLO}/issues/1/comments/492700400.json",
        "issue_comment/492700400",
        "2019-05-15T15:20:22Z",
    ),
    "pull_request__closed": (UPSERT, f"{HELLO}/pulls/2.json", "pull_request/279147437", "2019-05-15T15:21:18Z"),
    "pull_request_review__submitted.with-organization": (
        UPSERT,
        f"{HELLO}/pulls/2/reviews/237895671.json",
        "pull_request_review/237895671",
        None,
    ),
    "check_run__completed": (UPSERT, f"{HELLO}/check-runs/128620228.json", "check_run/128620228", None),
    "check_suite__requested": (
        UPSERT,
        f"{HELLO}/check-suites/118578174.json",
        "check_suite/118578174",
        "2019-05-15T15:20:33Z",
    ),
    "delete": (DELETE, f"{HELLO}/refs/tag/simple-tag.json", "ref/186853002:tag:simple-tag", None),
    "discussion__transferred": (DELETE, f"{HELLO}/discussions/4.json", "discussion/3299614", "2021-03-30T23:31:48Z"),
    "installation__suspend": (
        UPSERT,
        "/github/installations/16598467.json",
        "installation/16598467",
        "2021-04-29T02:32:50Z",
    ),
    "member__edited": (PATCH, f"{HELLO}/collaborators/octocat.json", "collaborator/135493233:583231", None),
    "membership__removed.with-deleted-team": (
        DELETE,
        "/github/orgs/Octocoders/teams/3253328/members/Codertocat.json",
        "team_member/3253328:21031067",
        None,
    ),
    "repository__renamed": (
        UPSERT,
        "/github/repos/Octocoders/Hello-World/repository.json",
        "repository/186853261",
        "2019-05-15T15:20:41Z",
    ),
    "star__deleted": (UPSERT, f"{HELLO}/repository.json", "repository/186853002", "2019-05-15T15:20:41Z"),
    "status__with-author-committer-null": (
        UPSERT,
        f"{HELLO}/commits/6113728f27ae82c7b1a177c8d03f9e96e0adf246/statuses/default.json",
        "commit_status/186853002:6113728f27ae82c7b1a177c8d03f9e96e0adf246:default",
        "2019-05-15T15:20:55Z",
    ),
    "workflow_job__completed.success.with-organization": (
        UPSERT,
        "/github/repos/Octocoders/Hello-World/actions/runs/2202229078/jobs/289782451.json",
        "workflow_job/289782451",
        "2021-08-05T10:38:16Z",
    ),
}
IGNORED = {"github_app_authorization", "ping", "sponsorship__downgraded"}


def normalise(event: str, body: bytes) -> types_pb2.Envelope:
    ((delivery, _, _),) = GITHUB.normalise(RequestFacts({"x-github-event": event, "x-github-delivery": "id-1"}, body))
    return delivery


def payload_name(path: Path) -> str:
    return re.sub(r"(__|\.)payload\b", "", path.name.removesuffix(".json"))


@pytest.mark.needs_data
def test_payloads_become_what_is_written_here(shared_data: Path) -> None:
    found: dict[str, tuple[int, str, str, str | None]] = {}
    for path in (shared_data / "github-webhooks").glob("*.json"):
        name = payload_name(path)
        if name in EXPECTED:
            (change,) = normalise(path.name.split("__")[0], path.read_bytes()).changes
            time = change.occurred_at.ToJsonString() if change.HasField("occurred_at") else None
            found[name] = (change.kind, change.path, change.provider_object_id, time)
    assert found == EXPECTED


@pytest.mark.needs_data
def test_every_payload_ends_as_its_rule_says(shared_data: Path) -> None:
    payloads = sorted((shared_data / "github-webhooks").glob("*.json"))
    assert len(payloads) == 155
    for path in payloads:
        event = path.name.split("__")[0]
        delivery = normalise(event, path.read_bytes())
        assert not delivery.HasField("failure"), path.name
        assert event in RULES.rules or event in RULES.ignored_events, f"{event} has no deliberate rule"
        if not delivery.changes:
            assert {event, payload_name(path)} & IGNORED, path.name
            continue
        (change,) = delivery.changes
        assert check_write_path(change.path) is None
        assert re.fullmatch(r"[a-z_0-9]+/[^/]+", change.provider_object_id), path.name
        assert change.path.startswith("/github/")
        assert (change.kind == DELETE) is (not change.content)


@pytest.mark.needs_data
def test_titles_and_bodies_do_not_move_a_file(shared_data: Path) -> None:
    payload = json.loads((shared_data / "github-webhooks" / "issues__edited.payload.json").read_bytes())
    (before,) = normalise("issues", json.dumps(payload).encode()).changes
    payload["issue"].update(title="Another", body="Another", state="closed", updated_at="2030-01-01T00:00:00Z")
    payload["repository"]["description"] = "Another"
    (after,) = normalise("issues", json.dumps(payload).encode()).changes
    assert (after.path, after.provider_object_id) == (before.path, before.provider_object_id)
    assert after.content != before.content
    assert dict(after.semantics.properties)["state"] == "closed"


@pytest.mark.needs_data
def test_the_order_of_members_does_not_show(shared_data: Path) -> None:
    payload = json.loads((shared_data / "github-webhooks" / "label__created.payload.json").read_bytes())
    backwards = dict(reversed(payload.items())) | {"label": dict(reversed(payload["label"].items()))}
    one, other = (normalise("label", json.dumps(each).encode()) for each in (payload, backwards))
    assert one.changes[0].content == other.changes[0].content
    assert one.changes[0].content.decode().splitlines()[1] == '  "color": "cb1f00",'


def test_a_comment_on_a_pull_request_lies_with_the_pull_request() -> None:
    body = {
        "action": "created",
        "issue": {"number": 5, "pull_request": {"url": "x"}},
        "comment": {"id": 6, "updated_at": "2020-01-01T00:00:00Z"},
        "repository": {"id": 1, "name": "r", "owner": {"login": "o"}},
    }
    (change,) = normalise("issue_comment", json.dumps(body).encode()).changes
    assert change.path == "/github/repos/o/r/pulls/5/comments/6.json"


@pytest.mark.parametrize(("event", "kind"), [("repository", DELETE), ("star", UPSERT)])
def test_a_star_that_is_withdrawn_deletes_no_repository(event: str, kind: int) -> None:
    body = {"action": "deleted", "repository": {"id": 1, "name": "r", "owner": {"login": "o"}}}
    (change,) = normalise(event, json.dumps(body).encode()).changes
    assert (change.kind, change.path) == (kind, "/github/repos/o/r/repository.json")


@pytest.mark.parametrize(("deleted", "kind"), [(False, UPSERT), (True, DELETE)])
def test_a_push(deleted: bool, kind: int) -> None:
    repository = {"id": 1, "name": "r", "owner": {"login": "o", "name": "o"}, "pushed_at": 1_557_933_656}
    body = {"ref": "refs/heads/a/b", "after": "c0ffee", "deleted": deleted, "repository": repository, "commits": []}
    (change,) = normalise("push", json.dumps(body).encode()).changes
    assert (change.kind, change.path) == (kind, "/github/repos/o/r/pushes/refs%2Fheads%2Fa%2Fb.json")
    assert change.occurred_at.ToJsonString() == "2019-05-15T15:20:56Z"
    assert change.provider_object_id == "push/1:refs%2Fheads%2Fa%2Fb"


def test_a_form_carries_the_payload() -> None:
    event = {"action": "created", "label": {"id": 1}, "repository": {"name": "r", "owner": {"login": "o"}}}
    body = urlencode({"payload": json.dumps(event)}).encode()
    headers = {"x-github-event": "label", "content-type": "application/x-www-form-urlencoded"}
    ((delivery, _, _),) = GITHUB.normalise(RequestFacts(headers, body))
    assert delivery.changes[0].path == "/github/repos/o/r/labels/1.json"
    ((delivery, _, _),) = GITHUB.normalise(RequestFacts(headers, b"other=1"))
    assert delivery.failure.reason == "MALFORMED_JSON"


@pytest.mark.parametrize("event", ["ping", "meta", "an_event_of_the_future"])
def test_ignored_and_unknown_events(event: str) -> None:
    delivery = normalise(event, b'{"action": "created"}')
    assert (list(delivery.changes), delivery.HasField("failure"), delivery.event_name) == (
        [],
        False,
        f"{event}.created",
    )


def test_a_request_without_event_header() -> None:
    ((delivery, _, _),) = GITHUB.normalise(RequestFacts({}, b"{}"))
    assert delivery.failure.reason == "EVENT_MISSING"


def test_only_harmless_headers_are_kept() -> None:
    headers = {
        "x-github-event": "ping",
        "x-hub-signature-256": "s",
        "authorization": "a",
        "cookie": "c",
        "user-agent": "u",
    }
    assert GITHUB.kept_headers(headers) == {"x-github-event": "ping", "user-agent": "u"}
