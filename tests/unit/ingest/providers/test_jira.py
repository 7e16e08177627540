"""Jira's rules. The expected files are written here by hand.

Payloads: issue events after the one that Atlassian documents in full
(https://developer.atlassian.com/server/jira/platform/webhooks/, also in the copy of
https://developer.atlassian.com/cloud/jira/platform/webhooks/ of 28 January 2026); comments, worklogs, attachments,
links, projects, versions and sprints after captured deliveries of 2018 to 2026, shortened; option_changed, user_deleted
and project_restored are unverified. Names of events: the Cloud page. Signature: its section "Secure admin webhooks",
with its test vector.
"""

import hashlib
import hmac

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.pinned_json import JsonValue
from tests.support.provider_fixtures import DELETE, UPSERT, Made, Outcome, names, outcome, refusal

JIRA = ProviderRegistry.load(1_000_000)["jira"]
ADA: JsonValue = {"accountId": "5c76b994e1bcdf6294d0eb0f", "displayName": "Ada King"}
ISSUE_PATH = "/jira/issues/99291.json"
FIELDS: dict[str, JsonValue] = {
    "summary": "I feel the need for speed",
    "created": "2009-12-16T23:46:10.612-0600",
    "updated": "2018-05-07T13:03:57.700+0000",
    "status": {"name": "To Do"},
    "issuetype": {"id": "10100", "name": "Task"},
    "priority": {"name": "Minor"},
    "project": {"id": "10000", "key": "JRA"},
    "creator": ADA,
    "assignee": None,
}
ISSUE: dict[str, JsonValue] = {
    "id": "99291",
    "key": "JRA-20002",
    "self": "https://site.example/rest/api/2/issue/99291",
    "fields": FIELDS,
}
COMMENT: JsonValue = {
    "id": "252789",
    "self": "https://site.example/rest/api/2/issue/99291/comment/252789",
    "author": ADA,
    "body": "Just in time for AtlasCamp!",
    "created": "2011-06-07T10:31:26.805-0500",
    "updated": "2011-06-07T10:31:26.805-0500",
}
PROJECT: JsonValue = {"id": 12345, "key": "ACTP", "name": "Agent Connector Test Project"}

EXPECTED = {
    "issue_created": Outcome(
        "wh-1",
        "jira:issue.created",
        [
            Made(
                UPSERT,
                ISSUE_PATH,
                "issue/99291",
                "2018-05-07T13:03:57.764Z",
                ISSUE,
                {
                    "key": "JRA-20002",
                    "title": "I feel the need for speed",
                    "state": "To Do",
                    "type": "Task",
                    "priority": "Minor",
                    "project": "JRA",
                    "author": "Ada King",
                },
                ["/jira/projects/10000.json"],
            )
        ],
    ),
    # Another project, another key: the same file.
    "issue_moved": Outcome(
        "wh-2",
        "jira:issue.updated",
        [
            Made(
                UPSERT,
                ISSUE_PATH,
                "issue/99291",
                "2018-05-07T13:05:00Z",
                {
                    **ISSUE,
                    "key": "OPS-7",
                    "fields": {
                        **FIELDS,
                        "project": {"id": "10001", "key": "OPS"},
                        "status": {"name": "Done"},
                        "assignee": ADA,
                        "parent": {"id": "99000", "key": "OPS-1"},
                    },
                },
                {
                    "key": "OPS-7",
                    "title": "I feel the need for speed",
                    "state": "Done",
                    "type": "Task",
                    "priority": "Minor",
                    "project": "OPS",
                    "author": "Ada King",
                    "assignee": "Ada King",
                },
                ["/jira/projects/10001.json", "/jira/issues/99000.json"],
            )
        ],
    ),
    "issue_deleted": Outcome(
        "wh-3", "jira:issue.deleted", [Made(DELETE, ISSUE_PATH, "issue/99291", "2018-05-07T13:06:40.001Z")]
    ),
    "comment_created": Outcome(
        "wh-4",
        "comment.created",
        [
            Made(
                UPSERT,
                "/jira/issues/99291/comments/252789.json",
                "comment/252789",
                "2019-08-16T14:00:17.153Z",
                COMMENT,
                {"author": "Ada King", "issue": "JRA-20002"},
                [ISSUE_PATH],
            )
        ],
    ),
    # The identity finds the file, wherever it is.
    "comment_deleted_without_issue": Outcome(
        "",
        "comment.deleted",
        [Made(DELETE, "/jira/comments/252789.json", "comment/252789", "2019-08-16T14:02:24.825Z")],
    ),
    "worklog_updated": Outcome(
        "wh-5",
        "worklog.updated",
        [
            Made(
                UPSERT,
                "/jira/issues/10014/worklogs/10066.json",
                "worklog/10066",
                "2026-09-22T18:48:35.652Z",
                {
                    "id": "10066",
                    "issueId": "10014",
                    "author": ADA,
                    "timeSpent": "1w",
                    "timeSpentSeconds": 144000,
                },
                {"author": "Ada King", "time_spent": "1w"},
                ["/jira/issues/10014.json"],
            )
        ],
    ),
    "attachment_created": Outcome(
        "wh-6",
        "attachment.created",
        [
            Made(
                UPSERT,
                "/jira/attachments/10000.json",
                "attachment/10000",
                "2019-08-16T14:00:17.153Z",
                {
                    "id": "10000",
                    "filename": "screenshot.png",
                    "mimeType": "image/png",
                    "size": 12345,
                    "author": ADA,
                },
                {"name": "screenshot.png", "type": "image/png", "author": "Ada King"},
                [ISSUE_PATH],
            )
        ],
    ),
    "issue_link_created": Outcome(
        "wh-7",
        "issuelink.created",
        [
            Made(
                UPSERT,
                "/jira/issue-links/23161.json",
                "issue_link/23161",
                "2020-08-03T19:07:15.907Z",
                {
                    "id": 23161,
                    "sourceIssueId": 18715,
                    "destinationIssueId": 11917,
                    "issueLinkType": {"id": 10002, "name": "Duplicate"},
                    "systemLink": False,
                },
                {"type": "Duplicate"},
                ["/jira/issues/18715.json", "/jira/issues/11917.json"],
            )
        ],
    ),
    "project_trashed": Outcome(
        "wh-8",
        "project_soft.deleted",
        [Made(DELETE, "/jira/projects/12345.json", "project/12345", "2020-08-03T19:07:15.907Z")],
    ),
    "project_restored": Outcome(
        "wh-9",
        "project_restored.deleted",
        [
            Made(
                UPSERT,
                "/jira/projects/12345.json",
                "project/12345",
                "2020-08-03T19:07:15.999Z",
                PROJECT,
                {"key": "ACTP", "name": "Agent Connector Test Project"},
            )
        ],
    ),
    "version_released": Outcome(
        "wh-10",
        "jira:version.released",
        [
            Made(
                UPSERT,
                "/jira/projects/12345/versions/65456.json",
                "version/65456",
                "2024-11-26T10:04:25.165Z",
                {"id": "65456", "name": "v1", "released": True, "projectId": 12345},
                {"name": "v1", "released": "true"},
                ["/jira/projects/12345.json"],
            )
        ],
    ),
    "sprint_started": Outcome(
        "wh-11",
        "sprint.started",
        [
            Made(
                UPSERT,
                "/jira/sprints/196.json",
                "sprint/196",
                "2020-07-30T20:50:26.397Z",
                {"id": 196, "state": "active", "name": "TES Sprint 2", "originBoardId": 9},
                {"name": "TES Sprint 2", "state": "active"},
                ["/jira/boards/9.json"],
            )
        ],
    ),
    "user_deleted": Outcome(
        "",
        "user.deleted",
        [Made(DELETE, "/jira/users/JIRAUSER10100.json", "user/JIRAUSER10100", "2020-07-30T20:50:26.397Z")],
    ),
    "option_changed": Outcome("wh-12", "option_voting.changed"),
    "unknown": Outcome("wh-13", "something_of_the.future"),
}


@pytest.mark.parametrize("name", names("jira"))
def test_an_event_becomes_what_is_written_here(name: str) -> None:
    assert outcome(JIRA, name) == EXPECTED[name]


def test_the_signature_that_the_documentation_shows() -> None:
    header = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"
    secret = "It's a Secret to Everybody"
    assert refusal(JIRA, {"x-hub-signature": header}, b"Hello World!", [secret]) == ""
    assert refusal(JIRA, {"x-hub-signature": header}, b"Hello World", [secret]) == "SIGNATURE_MISMATCH"
    assert refusal(JIRA, {"x-hub-signature": header}, b"Hello World!", ["other"]) == "SIGNATURE_MISMATCH"


def test_another_algorithm_is_none() -> None:
    digest = hmac.new(b"s", b"{}", hashlib.sha1).hexdigest()
    assert refusal(JIRA, {"x-hub-signature": f"sha1={digest}"}, b"{}", ["s"]) == "SIGNATURE_MALFORMED"


def test_an_unsigned_hook_is_proven_by_a_token_alone() -> None:
    assert refusal(JIRA, {}, b"{}", ["s"]) == "SIGNATURE_MISSING"
    assert JIRA.accepts_token
