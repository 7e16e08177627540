"""Rows of the matrix of bad bodies against a whole system: the exact status, and what is in the store afterwards.

What every provider answers to every row is `tests/unit/ingest/webhooks/test_status_matrix.py`; here are the files, dead
letters and sums that come of it behind ingest, for a provider of each form of proof and body.
"""

import asyncio
import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest

from relayfile.ingest.providers.definition import BodyForm
from relayfile.local.system import LocalSystem
from relayfile.v1 import ingest_pb2
from tests.support.client import Client
from tests.support.provider_requests import SECRET, Signer, every_signer

pytestmark = pytest.mark.asyncio(loop_scope="session")

BODY_BYTES_MAX = 26 << 20
MANY = 10_000


class After(NamedTuple):
    """What a request amounts to."""

    status: int
    outcomes: Mapping[str, int] = {}
    letter: str = ""
    """The reason of the dead letter that it became."""
    rejection: str = ""
    """As the log of refused requests has it."""


class Row(NamedTuple):
    """One request."""

    name: str
    body: bytes
    after: After
    headers: Mapping[str, str] = {}
    secret: str = SECRET
    content_length: int | None = None
    """Announced; None: that of the body."""


@dataclass(frozen=True, slots=True)
class Form:
    """A provider, and what its good request becomes."""

    name: str
    first: Mapping[str, int]
    again: Mapping[str, int]
    """When it comes a second time."""
    files: int = 1
    many: Mapping[str, int] = field(default_factory=dict)
    """Of ten thousand events; empty: its bodies have one."""

    @property
    def signer(self) -> Signer:
        (signer,) = [each for each in every_signer() if each.name == self.name]
        return replace(signer, now_s=int(time.time()))


APPLIED, DUPLICATE = {"applied": 1}, {"duplicate": 1}
FORMS = (
    Form("github-x-hub-signature-256", APPLIED, DUPLICATE),
    Form("jira-x-hub-signature", APPLIED, DUPLICATE),
    Form("gitlab-x-gitlab-token", {"unchanged": 1}, DUPLICATE),
    Form("stripe-stripe-signature", APPLIED, DUPLICATE),
    Form("slack-x-slack-signature", APPLIED, DUPLICATE, files=0),
    Form("generic-webhook-signature", APPLIED, DUPLICATE),
    Form("hubspot-x-hubspot-signature-v3", APPLIED, DUPLICATE, many={"applied": MANY}),
    Form("asana-x-hook-signature", APPLIED, DUPLICATE, files=0, many={"applied": MANY}),
)


def rows(form: Form, signer: Signer) -> Iterator[Row]:
    body = signer.body
    is_envelope = signer.provider.definition.form is BodyForm.ENVELOPE
    shape = "INVALID_ENVELOPE" if is_envelope else "UNEXPECTED_SHAPE"
    yield Row("good", body, After(200, form.first))
    yield Row("wrong signature", body, refused(401, "SIGNATURE_MISMATCH"), secret="another secret")
    yield Row("truncated JSON", body[:-1], letter("MALFORMED_JSON"))
    yield Row("empty body", b"", letter("MALFORMED_JSON"))
    yield Row("invalid UTF-8", b'{"\xff": 1}', letter("MALFORMED_JSON"))
    nested = "INVALID_ENVELOPE" if is_envelope else "MALFORMED_JSON"
    yield Row("deep nesting", b"[" * 100_000 + b"]" * 100_000, letter(nested))
    yield Row("another shape", b'"x"', letter(shape))
    yield Row("over the cap", b"", refused(413, "TOO_LARGE"), content_length=BODY_BYTES_MAX + 1)
    bomb = gzip.compress(b" " * (BODY_BYTES_MAX + 1), 1)
    yield Row("a gzip bomb", bomb, refused(413, "TOO_LARGE"), {"content-encoding": "gzip"})
    if signer.events is None:
        yield Row("an array", b"[" + body + b"]", letter(shape))
    else:
        yield Row("no events", events(signer, 0, 0), After(200, {"ignored": 1}))
        yield Row("10,001 events", events(signer, 2_000_000, MANY + 1), letter("TOO_LARGE"))
        yield Row("10,000 events", events(signer, 1_000_000, MANY), After(200, form.many))
    # Last: a second change of an object waits for more of them.
    yield Row("duplicate keys", doubled(body), After(200, form.again))


def refused(status: int, reason: str) -> After:
    return After(status, rejection=reason)


def letter(reason: str) -> After:
    return After(200, {"dead_lettered": 1}, reason)


def doubled(body: bytes) -> bytes:
    """With its first member twice: the second one counts, and is the same."""
    start = body.index(b"{") + 1
    name = json.loads(body[start : body.index(b":")])
    document = json.loads(body)
    value = (document[0] if isinstance(document, list) else document)[name]
    return body[:start] + f"{json.dumps(name)}: {json.dumps(value)}, ".encode() + body[start:]


def events(signer: Signer, first: int, count: int) -> bytes:
    """The good request with so many events, each of another object."""
    assert signer.events is not None
    text = json.dumps(signer.events[0])
    # What names the event and the object in the fixtures of the providers with lists.
    made = [
        json.loads(text.replace('"61"', f'"{number}"').replace('"eventId": 12,', f'"eventId": {number},'))
        for number in range(first, first + count)
    ]
    for number, event in enumerate(made, first):
        if "toObjectId" in event:
            event["toObjectId"] = number
    return json.dumps(signer.with_events(made), separators=(",", ":")).encode()


@dataclass(slots=True)
class Target:
    """A workspace, and all that bad input could have changed in it."""

    name: str
    client: Client
    address: tuple[str, int]
    ended: int = 0

    async def send(self, signer: Signer, row: Row) -> int:
        path = f"/v1/workspaces/{self.name}/webhooks/{signer.provider.name}"
        host = ":".join(map(str, self.address))
        also = dict(row.headers)
        if row.after.letter:
            # Another delivery than the good one, where headers say that.
            signer = replace(signer, message_id=row.name)
            also |= dict.fromkeys(signer.provider.definition.delivery.id_headers, row.name)
        proof = signer.signed(row.body, f"https://{host}{path}", secret=row.secret, also=also)
        length = len(row.body) if row.content_length is None else row.content_length
        lines = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-length: {length}"]
        lines += [f"{name}: {value}" for name, value in proof.items()]
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + row.body)
            return int((await asyncio.wait_for(reader.readline(), 20)).split()[1])
        finally:
            writer.close()

    async def state(self, more: int) -> tuple[Counter[str], Counter[str], int, int]:
        """Outcomes, reasons of dead letters, files and revision, when ``more`` changes have ended."""
        self.ended += more
        counts = await self.client.settled(self.name, self.ended)
        assert counts.pending == 0
        letters = await self.client.dead_letter_list(self.name)
        workspace = await self.client.workspace(self.name)
        outcomes = Counter({name: count for name, count in counts.by_outcome.items() if count})
        return outcomes, Counter(each.reason for each in letters), workspace.totals.file_count, workspace.revision

    async def rejections(self) -> Counter[str]:
        request = ingest_pb2.ListRejectedRequestsRequest(workspace_id=self.name, page_size=1_000)
        response = await self.client.ingest().ListRejectedRequests(request, metadata=self.client.metadata)
        return Counter(each.reason for each in response.requests)


async def test_each_body_has_its_status_and_its_effect(system: LocalSystem, client: Client, workspace: str) -> None:
    address = ("127.0.0.1", system.ports.ingest_http)
    async with asyncio.TaskGroup() as tasks:
        for form in FORMS:
            secrets = system.layout.secrets / f"{workspace}-{form.name}"[:100]
            secrets.mkdir(parents=True)
            (secrets / form.signer.provider.name).write_text(SECRET + "\n")
            tasks.create_task(check(form, Target(secrets.name, client, address)))


async def check(form: Form, target: Target) -> None:
    """Every row, and what is there after it."""
    signer = form.signer
    outcomes, letters, rejections = Counter[str](), Counter[str](), Counter[str]()
    files = 0
    for row in rows(form, signer):
        assert (form.name, row.name, await target.send(signer, row)) == (form.name, row.name, row.after.status)
        outcomes.update(row.after.outcomes)
        letters.update([row.after.letter] if row.after.letter else [])
        rejections.update([row.after.rejection] if row.after.rejection else [])
        files += form.files * row.after.outcomes.get("applied", 0)
        state = await target.state(sum(row.after.outcomes.values()))
        assert (form.name, row.name, *state) == (form.name, row.name, outcomes, letters, files, files)
    assert await target.rejections() == rejections
    assert len(await target.client.tree(target.name)) == files
    assert len(await target.client.all_events(target.name)) == files
