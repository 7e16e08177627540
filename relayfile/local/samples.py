"""GitHub payloads of the project's own: small, shaped like the real ones, about an invented company.

Only the fields that people look at or the adapter reads are there. Times are ISO 8601 in UTC.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
OWNER = "acme"
REPOSITORY_ID = 4_100_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One delivery: its event, a stable delivery id and the body."""

    event: str
    delivery_id: str
    body: bytes


def issue(repository: str, number: int, *, edit: int = 0, action: str | None = None, delivery_id: str = "") -> Sample:
    """An issue, opened (`edit` 0) or edited for the n-th time, a second later each time."""
    action = action or ("edited" if edit else "opened")
    payload = {
        "action": action,
        "issue": {
            "id": _number_in(repository) * 100_000 + number,
            "number": number,
            "title": f"Conveyor {number} stops when the light is on" + (f" (edit {edit})" if edit else ""),
            "body": f"Seen {edit + 1} times. The belt waits for a parcel that is already there.",
            "state": "closed" if action == "closed" else "open",
            "user": {"login": "mara", "id": 17},
            "labels": [{"id": 9, "name": "hardware", "color": "d73a4a"}],
            "created_at": _time(number),
            "updated_at": _time(number, edit),
            "url": f"https://api.github.com/repos/{OWNER}/{repository}/issues/{number}",
            "html_url": f"https://github.com/{OWNER}/{repository}/issues/{number}",
        },
        **_context(repository),
    }
    return Sample("issues", delivery_id or f"issue-{repository}-{number}-{action}-{edit}", _body(payload))


def comment(repository: str, number: int, comment_id: int) -> Sample:
    """A comment on an issue."""
    payload = {
        "action": "created",
        "issue": json.loads(issue(repository, number).body)["issue"],
        "comment": {
            "id": _number_in(repository) * 100_000 + comment_id,
            "body": "Same on line 3. Cleaning the sensor helps for an hour.",
            "user": {"login": "jonas", "id": 23},
            "created_at": _time(comment_id),
            "updated_at": _time(comment_id),
            "html_url": f"https://github.com/{OWNER}/{repository}/issues/{number}#issuecomment-{comment_id}",
        },
        **_context(repository),
    }
    return Sample("issue_comment", f"comment-{repository}-{comment_id}", _body(payload))


def pull_request(repository: str, number: int) -> Sample:
    """A pull request, opened."""
    payload = {
        "action": "opened",
        "number": number,
        "pull_request": {
            "id": _number_in(repository) * 100_000 + number,
            "number": number,
            "title": f"Debounce the light barrier of conveyor {number}",
            "body": "Waits 200 ms before it believes the sensor.",
            "state": "open",
            "merged": False,
            "user": {"login": "mara", "id": 17},
            "created_at": _time(number),
            "updated_at": _time(number),
            "head": {"ref": "debounce", "sha": f"{number:040x}"},
            "base": {"ref": "main", "sha": f"{number + 1:040x}"},
            "html_url": f"https://github.com/{OWNER}/{repository}/pull/{number}",
        },
        **_context(repository),
    }
    return Sample("pull_request", f"pull-{repository}-{number}", _body(payload))


def morning(repository: str, issues: int) -> Iterator[Sample]:
    """A busy morning in one repository: issues, every third commented, every fourth with a pull request."""
    for number in range(1, issues + 1):
        yield issue(repository, number)
        if number % 3 == 0:
            yield comment(repository, number, 10_000 + number)
        if number % 4 == 0:
            yield pull_request(repository, 50_000 + number)


def _number_in(repository: str) -> int:
    return 1 + sum(repository.encode()) % 900


def _context(repository: str) -> dict[str, object]:
    owner = {"login": OWNER, "id": 5, "type": "Organization"}
    return {
        "repository": {
            "id": REPOSITORY_ID + _number_in(repository),
            "name": repository,
            "full_name": f"{OWNER}/{repository}",
            "private": True,
            "owner": owner,
            "html_url": f"https://github.com/{OWNER}/{repository}",
            "updated_at": _time(0),
        },
        "organization": owner,
        "sender": {"login": "mara", "id": 17},
    }


def _time(minutes: int, seconds: int = 0) -> str:
    return (EPOCH + timedelta(minutes=minutes, seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _body(payload: dict[str, object]) -> bytes:
    return json.dumps(payload, separators=(",", ":")).encode()
