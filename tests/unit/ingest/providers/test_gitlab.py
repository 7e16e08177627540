"""GitLab's rules. The expected files are written here by hand.

Payloads: doc/user/project/integrations/webhook_events.md of gitlab-org/gitlab, copy of 2025 (version 18.2 and later,
commit 017a6c129d6a), shortened; epics, deleted refs and a retried job after the same page. Headers and
`Idempotency-Key`: webhooks.md of the same repository, copy of version 17.4 and later. Signing token: merge request
230944 of the same project (April 2026). Events of an instance: doc/administration/system_hooks.md, the same copy.
"""

import base64
import hashlib
import hmac

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.pinned_json import JsonValue
from tests.support.provider_fixtures import DELETE, PATCH, UPSERT, Made, Outcome, names, outcome, refusal

GITLAB = ProviderRegistry.load(1_000_000)["gitlab"]
ISSUE: dict[str, JsonValue] = {
    "id": 301,
    "iid": 23,
    "title": "New API",
    "state": "opened",
    "type": "Issue",
    "confidential": False,
    "author_id": 51,
    "milestone_id": 61,
    "project_id": 15,
    "created_at": "2013-12-03T17:15:43Z",
    "updated_at": "2013-12-03T17:15:43Z",
}
ISSUE_PATH = "/gitlab/projects/15/issues/23.json"
ISSUE_PROPERTIES = {
    "title": "New API",
    "state": "opened",
    "type": "Issue",
    "confidential": "false",
    "author": "51",
    "assignee": "user1",
}
MILESTONE = ["/gitlab/projects/15/milestones/61.json"]

EXPECTED = {
    "issue_open": Outcome(
        "f5e5f430-f57b-4e6e-9fac-d9128cd7232f",
        "issue.open",
        [
            Made(
                UPSERT,
                ISSUE_PATH,
                "work_item/301",
                "2013-12-03T17:15:43Z",
                {**ISSUE, "action": "open"},
                ISSUE_PROPERTIES,
                MILESTONE,
            )
        ],
    ),
    "issue_update": Outcome(
        "f5e5f430-0000-4e6e-9fac-d9128cd72330",
        "issue.update",
        [
            Made(
                UPSERT,
                ISSUE_PATH,
                "work_item/301",
                "2017-09-15T16:52:00Z",
                {**ISSUE, "title": "Another title", "updated_at": "2017-09-15 16:52:00 UTC", "action": "update"},
                {
                    "title": "Another title",
                    "state": "opened",
                    "type": "Issue",
                    "confidential": "false",
                    "author": "51",
                },
                MILESTONE,
            )
        ],
    ),
    # Before 17.4 GitLab sends no id: the front makes one of the change's time and body.
    "issue_before_17_4": Outcome(
        "",
        "issue.close",
        [
            Made(
                UPSERT,
                ISSUE_PATH,
                "work_item/301",
                "2013-12-03T17:15:43Z",
                {**ISSUE, "action": "close", "state": "closed"},
                {
                    "title": "New API",
                    "state": "closed",
                    "type": "Issue",
                    "confidential": "false",
                    "author": "51",
                },
                MILESTONE,
            )
        ],
    ),
    "epic_close": Outcome(
        "key-epic",
        "work_item.close",
        [
            Made(
                UPSERT,
                "/gitlab/work-items/884.json",
                "work_item/884",
                "2025-02-01T08:00:00Z",
                {
                    "id": 884,
                    "iid": 3,
                    "title": "Plan",
                    "state": "closed",
                    "type": "Epic",
                    "confidential": True,
                    "author_id": 51,
                    "updated_at": "2025-02-01 08:00:00 UTC",
                    "action": "close",
                },
                {"title": "Plan", "state": "closed", "type": "Epic", "confidential": "true", "author": "51"},
            )
        ],
    ),
    "merge_request_merge": Outcome(
        "key-mr",
        "merge_request.merge",
        [
            Made(
                UPSERT,
                "/gitlab/projects/15/merge-requests/1.json",
                "merge_request/99",
                "2013-12-03T17:23:34Z",
                {
                    "id": 99,
                    "iid": 1,
                    "title": "MS-Viewport",
                    "state": "merged",
                    "draft": False,
                    "author_id": 51,
                    "source_branch": "ms-viewport",
                    "target_branch": "master",
                    "milestone_id": None,
                    "updated_at": "2013-12-03T17:23:34Z",
                    "action": "merge",
                },
                {
                    "title": "MS-Viewport",
                    "state": "merged",
                    "draft": "false",
                    "author": "51",
                    "base": "master",
                    "head": "ms-viewport",
                },
            )
        ],
    ),
    "note_on_merge_request": Outcome(
        "key-note",
        "note.create",
        [
            Made(
                UPSERT,
                "/gitlab/projects/15/merge-requests/1/notes/1244.json",
                "note/1244",
                "2015-05-17T18:21:36Z",
                {
                    "id": 1244,
                    "note": "This MR needs work.",
                    "noteable_type": "MergeRequest",
                    "author_id": 1,
                    "updated_at": "2015-05-17 18:21:36 UTC",
                    "action": "create",
                },
                {"author": "1"},
                ["/gitlab/projects/15/merge-requests/1.json"],
            )
        ],
    ),
    "wiki_page_delete": Outcome(
        "key-wiki",
        "wiki_page.delete",
        [
            Made(
                DELETE,
                "/gitlab/projects/15/wiki/notes%2Fawesome.json",
                "wiki_page/project:15:notes%2Fawesome",
            )
        ],
    ),
    "emoji_revoke": Outcome(
        "key-emoji",
        "emoji.revoke",
        [Made(DELETE, "/gitlab/projects/15/emoji/1.json", "emoji/1", "2023-07-04T20:44:11Z")],
    ),
    "push": Outcome(
        "key-push",
        "push",
        [
            Made(
                UPSERT,
                "/gitlab/projects/15/pushes/refs%2Fheads%2Fmaster.json",
                "push/15:refs%2Fheads%2Fmaster",
                None,
                {
                    "ref": "refs/heads/master",
                    "before": "95790bf891e76fee5e1747ab589903a6a1f80f22",
                    "after": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
                    "checkout_sha": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
                    "ref_protected": True,
                    "user_id": 4,
                    "user_username": "jsmith",
                    "head_commit": {"id": "da156088", "message": "fixed readme"},
                    "total_commits_count": 4,
                },
                {
                    "name": "refs/heads/master",
                    "commit": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
                    "author": "jsmith",
                },
            )
        ],
    ),
    "branch_deleted": Outcome(
        "key-push-2",
        "push",
        [
            Made(
                DELETE,
                "/gitlab/projects/15/pushes/refs%2Fheads%2Ffeature%2Fx.json",
                "push/15:refs%2Fheads%2Ffeature%2Fx",
            )
        ],
    ),
    "pipeline": Outcome(
        "key-pipeline",
        "pipeline",
        [
            Made(
                UPSERT,
                "/gitlab/projects/15/pipelines/31.json",
                "pipeline/31",
                None,
                {
                    "id": 31,
                    "iid": 3,
                    "name": "Pipeline for branch: master",
                    "ref": "master",
                    "sha": "bcbb5ec3",
                    "status": "success",
                    "created_at": "2016-08-12 15:23:28 UTC",
                    "finished_at": "2016-08-12 15:26:29 UTC",
                },
                {
                    "name": "Pipeline for branch: master",
                    "state": "success",
                    "branch": "master",
                    "commit": "bcbb5ec3",
                },
                ["/gitlab/projects/15/merge-requests/1.json"],
            )
        ],
    ),
    "job": Outcome(
        "key-job",
        "build",
        [
            Made(
                UPSERT,
                "/gitlab/projects/15/jobs/1977.json",
                "job/1977",
                "2021-02-23T02:42:00Z",
                {
                    "id": 1977,
                    "name": "test",
                    "stage": "test",
                    "status": "running",
                    "created_at": "2021-02-23 02:41:37 UTC",
                    "started_at": "2021-02-23 02:42:00 UTC",
                    "retries_count": 2,
                    "pipeline_id": 2366,
                    "ref": "gitlab-script-trigger",
                    "tag": False,
                    "sha": "2293ada6",
                },
                {"name": "test", "state": "running", "branch": "gitlab-script-trigger"},
                ["/gitlab/projects/15/pipelines/2366.json"],
            )
        ],
    ),
    "deployment": Outcome(
        "key-deployment",
        "deployment",
        [
            Made(
                UPSERT,
                "/gitlab/projects/15/deployments/15.json",
                "deployment/15",
                "2021-04-28T19:50:00Z",
                {
                    "id": 15,
                    "status": "success",
                    "status_changed_at": "2021-04-28 21:50:00 +0200",
                    "environment": "staging",
                    "environment_tier": "staging",
                    "deployable_id": 796,
                    "short_sha": "279484c0",
                    "commit_title": "Add new file",
                },
                {"state": "success", "environment": "staging"},
                ["/gitlab/projects/15/jobs/796.json"],
            )
        ],
    ),
    "release_delete": Outcome(
        "key-release", "release.delete", [Made(DELETE, "/gitlab/projects/15/releases/1.json", "release/1")]
    ),
    "member_removed": Outcome(
        "key-member",
        "user_remove_from_group",
        [Made(DELETE, "/gitlab/groups/100/members/64.json", "group_member/100:64", "2020-12-12T08:52:34Z")],
    ),
    "group_rename": Outcome(
        "key-group",
        "group_rename",
        [
            Made(
                PATCH,
                "/gitlab/groups/64/group.json",
                "group/64",
                "2017-11-01T10:23:52Z",
                {
                    "id": 64,
                    "name": "Better Name",
                    "path": "better-name",
                    "full_path": "parent-group/better-name",
                    "updated_at": "2017-11-01T10:23:52Z",
                },
                {"name": "parent-group/better-name"},
            )
        ],
    ),
    "team_member_updated": Outcome(
        "key-team",
        "user_update_for_team",
        [
            Made(
                UPSERT,
                "/gitlab/projects/74/members/41.json",
                "project_member/74:41",
                "2012-07-21T07:38:22Z",
                {
                    "user_id": 41,
                    "user_username": "johnsmith",
                    "user_name": "John Smith",
                    "user_email": "johnsmith@example.com",
                    "project_id": 74,
                    "access_level": "Maintainer",
                    "created_at": "2012-07-21T07:30:56Z",
                    "updated_at": "2012-07-21T07:38:22Z",
                },
                {"name": "johnsmith", "role": "Maintainer"},
            )
        ],
    ),
    "user_rename": Outcome(
        "key-user",
        "user_rename",
        [
            Made(
                UPSERT,
                "/gitlab/users/58.json",
                "user/58",
                "2017-11-01T14:04:47Z",
                {
                    "id": 58,
                    "name": "new-name",
                    "username": "new-exciting-name",
                    "email": "best-email@example.tld",
                    "created_at": "2017-11-01T11:21:04Z",
                    "updated_at": "2017-11-01T14:04:47Z",
                },
                {"name": "new-exciting-name", "email": "best-email@example.tld"},
            )
        ],
    ),
    "user_failed_login": Outcome("key-login", "user_failed_login"),
    "unknown": Outcome("key-future", "something_of_the_future.create"),
    "vulnerability": Outcome("key-vulnerability", "vulnerability"),
}

SIGNING_TOKEN = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize("name", names("gitlab"))
def test_an_event_becomes_what_is_written_here(name: str) -> None:
    assert outcome(GITLAB, name) == EXPECTED[name]


@pytest.mark.parametrize(("token", "reason"), [("t0ken", ""), ("t0keN", "SIGNATURE_MISMATCH")])
def test_the_secret_token(token: str, reason: str) -> None:
    assert refusal(GITLAB, {"x-gitlab-token": token}, b"{}", ["newer", "t0ken"]) == reason


def test_a_signing_token() -> None:
    body = b'{"object_kind": "push"}'
    digest = hmac.new(bytes(range(32)), b"key-1.1700000000." + body, hashlib.sha256).digest()
    headers = {
        "webhook-id": "key-1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }
    assert refusal(GITLAB, headers, body, [SIGNING_TOKEN], 1_700_000_010) == ""
    assert refusal(GITLAB, headers, body + b" ", [SIGNING_TOKEN], 1_700_000_010) == "SIGNATURE_MISMATCH"
    assert refusal(GITLAB, headers | {"webhook-id": "key-2"}, body, [SIGNING_TOKEN], 1_700_000_010) == (
        "SIGNATURE_MISMATCH"
    )
    assert refusal(GITLAB, headers, body, [SIGNING_TOKEN], 1_700_001_000) == "TIMESTAMP_STALE"


def test_a_signed_request_is_judged_by_its_signature_alone() -> None:
    headers = {"webhook-id": "k", "webhook-timestamp": "1700000000", "webhook-signature": "v1,AAAA"}
    assert refusal(GITLAB, headers | {"x-gitlab-token": "t"}, b"{}", ["t"], 1_700_000_000) == "SIGNATURE_MALFORMED"


def test_without_either_a_request_is_not_proven() -> None:
    assert refusal(GITLAB, {}, b"{}", ["t"]) == "SIGNATURE_MISSING"
