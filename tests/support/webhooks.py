"""Webhooks for tests: the sample payloads as GitHub would send them, and small issue events made to order."""

import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from relayfile.local.delivery import Delivery, github_delivery

SAMPLE_COUNT = 155


@dataclass(frozen=True, slots=True)
class Sample:
    """One payload of the sample data."""

    name: str
    event: str
    body: bytes

    def delivery(self, workspace: str, secret: str) -> Delivery:
        """Always the same delivery id for the same sample and workspace, as a manual redelivery has."""
        return github_delivery(workspace, self.event, self.body, secret=secret, delivery_id=self.delivery_id)

    @property
    def delivery_id(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, self.name))


def samples(folder: Path) -> list[Sample]:
    """All payloads in the order of their file names."""
    paths = sorted(folder.glob("*.json"), key=lambda path: path.name)
    return [Sample(path.name, path.name.partition("__")[0], path.read_bytes()) for path in paths]


def shuffled(all_samples: Sequence[Sample], seed: int) -> list[Sample]:
    result = list(all_samples)
    random.Random(seed).shuffle(result)
    return result


@dataclass(frozen=True, slots=True)
class Issue:
    """One state of one GitHub issue."""

    number: int
    title: str
    updated_us: int = 1_760_000_000_000_000
    """GitHub's clock has seconds; anything finer is lost on the way."""
    action: str = "edited"
    repository: str = "acme/shop"

    @property
    def path(self) -> str:
        return f"/github/repos/{self.repository}/issues/{self.number}.json"

    @property
    def content(self) -> dict[str, object]:
        """What the file holds, as parsed JSON."""
        moment = datetime.fromtimestamp(self.updated_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "id": 5_000_000 + self.number,
            "number": self.number,
            "title": self.title,
            "state": "open",
            "created_at": "2025-01-01T00:00:00Z",
            "updated_at": moment,
            "user": {"login": "octo", "id": 1},
            "body": "x" * 200,
        }

    @property
    def body(self) -> bytes:
        owner, _, name = self.repository.partition("/")
        payload = {
            "action": self.action,
            "issue": self.content,
            "repository": {"id": 77, "name": name, "full_name": self.repository, "owner": {"login": owner, "id": 2}},
            "sender": {"login": "octo", "id": 1},
        }
        return json.dumps(payload).encode()

    def delivery(self, workspace: str, secret: str, delivery_id: str | None = None) -> Delivery:
        return github_delivery(
            workspace, "issues", self.body, secret=secret, delivery_id=delivery_id or str(uuid.uuid4())
        )
