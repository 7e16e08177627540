"""Every provider's requests, good and bad, through every door: the exact status, and what is there afterwards.

The doors are the short way, the usual way, and the URL of an app. A provider that is built in is tested here by itself.
"""

import gzip
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from relayfile.ingest.providers.definition import BodyForm
from relayfile.pinned_json import JsonValue
from relayfile.v1 import types_pb2
from tests.support.provider_requests import SECRET, Signer, every_signer
from tests.unit.ingest.front import WORKSPACE, Client, Front, Response, request_bytes, running_front

CAP = 4_000_000
MANY = 10_000
"""Events of one body at most."""


class Expected(NamedTuple):
    """What a request amounts to."""

    status: int
    error: str = ""
    """As the sender is told."""
    reason: str = ""
    """As the log of refused requests has it."""
    letter: str = ""
    """Accepted as one dead letter with this reason."""
    copies: int = 0
    """Accepted, so many times what the good request amounts to."""


class Row(NamedTuple):
    """One request."""

    name: str
    data: bytes
    expected: Expected
    late_s: int = 0
    """How long it was on its way."""


GOOD = Expected(200, copies=1)
TOO_LARGE = Expected(413, "TOO_LARGE", "TOO_LARGE")


def unproven(reason: str) -> Expected:
    return Expected(401, "UNAUTHENTICATED", reason)


def letter(reason: str) -> Expected:
    return Expected(200, letter=reason)


def rows(signer: Signer, path: str) -> Iterator[Row]:
    """The matrix's row of one provider."""
    yield from proofs(signer, path)
    yield from contents(signer, path)
    yield from sizes(signer, path)


def sent(signer: Signer, path: str, content: bytes, **also: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in also.items()}
    return request_bytes(path, content, signer.signed(content, f"https://test{path}", also=named))


def proofs(signer: Signer, path: str) -> Iterator[Row]:
    """Who sends it, and when."""
    url, body = f"https://test{path}", signer.body
    yield Row("good", sent(signer, path, body), GOOD)
    yield Row("replayed", sent(signer, path, body) * 2, GOOD._replace(copies=2))
    wrong = signer.signed(body, url, secret="another secret")
    yield Row("wrong signature", request_bytes(path, body, wrong), unproven("SIGNATURE_MISMATCH"))
    bare = {name: value for name, value in signer.signed(body, url).items() if name != signer.scheme.header}
    yield Row("missing signature", request_bytes(path, body, bare), unproven("SIGNATURE_MISSING"))
    if not signer.scheme.is_token:
        malformed = bare | {signer.scheme.header: "\xff,=;v1=zz"}
        late = unproven("TIMESTAMP_MISSING" if signer.scheme.timestamp_prefix else "SIGNATURE_MALFORMED")
        yield Row("malformed signature", request_bytes(path, body, malformed), late)
        changed = request_bytes(path, body + b" ", signer.signed(body, url))
        yield Row("changed body", changed, unproven("SIGNATURE_MISMATCH"))
    if signer.is_timed:
        old_s = 301 + round(signer.scheme.repeats_for_s or 0)
        yield Row("old timestamp", sent(signer, path, body), unproven("TIMESTAMP_STALE"), late_s=old_s)
        yield Row("early timestamp", sent(signer, path, body), unproven("TIMESTAMP_STALE"), late_s=-301)


def contents(signer: Signer, path: str) -> Iterator[Row]:
    """What is in the body of a proven request."""
    body, definition = signer.body, signer.provider.definition
    is_envelope = definition.form is BodyForm.ENVELOPE
    # A body that cannot be read has no time in it either, and is kept; one that can be read and has none is refused.
    other_shape = letter("INVALID_ENVELOPE") if is_envelope else letter("UNEXPECTED_SHAPE")
    if signer.scheme.body_time is not None:
        other_shape = unproven("TIMESTAMP_MISSING")
    yield Row("truncated JSON", sent(signer, path, body[:-1]), letter("MALFORMED_JSON"))
    yield Row("empty body", sent(signer, path, b""), letter("MALFORMED_JSON"))
    yield Row("no JSON", sent(signer, path, b"hello=world"), letter("MALFORMED_JSON"))
    yield Row("wrong content type", sent(signer, path, body, content_type="text/plain"), GOOD)
    form = "application/x-www-form-urlencoded"
    yield Row(
        "a form",
        sent(signer, path, body, content_type=form),
        letter("MALFORMED_JSON") if definition.delivery.form_field else GOOD,
    )
    yield Row("invalid UTF-8", sent(signer, path, b'{"\xff": 1}'), letter("MALFORMED_JSON"))
    yield Row("duplicate keys", sent(signer, path, doubled(body)), GOOD)
    nested = letter("INVALID_ENVELOPE" if is_envelope else "MALFORMED_JSON")
    yield Row("deep nesting", sent(signer, path, b"[" * 100_000 + b"]" * 100_000), nested)
    yield Row("deep nesting of objects", sent(signer, path, b'{"provider":' * 50_000 + b"1" + b"}" * 50_000), nested)
    yield Row("null", sent(signer, path, b"null"), other_shape)
    yield Row("a number", sent(signer, path, b"1e999999"), letter("MALFORMED_JSON") if not is_envelope else other_shape)
    yield Row("another shape", sent(signer, path, b'"x"'), other_shape)
    if signer.events is None:
        yield Row("an array", sent(signer, path, b"[" + body + b"]"), other_shape)
    else:
        yield Row("no events", sent(signer, path, events(signer, 0)), Expected(200))
        yield Row("an array of 10,000", sent(signer, path, events(signer, MANY)), GOOD._replace(copies=MANY))
        yield Row("an array of 10,001", sent(signer, path, events(signer, MANY + 1)), letter("TOO_LARGE"))
        yield Row("an array of no events", sent(signer, path, events(signer, 1, event=7)), letter("UNEXPECTED_SHAPE"))


def sizes(signer: Signer, path: str) -> Iterator[Row]:
    """How large it is, and how it is compressed."""
    body = signer.body
    yield Row("over the cap, announced", announced(path, signer, CAP + 1), TOO_LARGE)
    yield Row("over the cap, in chunks", chunked(path, signer, CAP + 1), TOO_LARGE)
    bomb = gzip.compress(b" " * (CAP + 1))
    yield Row("a gzip bomb", sent(signer, path, bomb, content_encoding="gzip"), TOO_LARGE)
    yield Row("compressed", sent(signer, path, gzip.compress(body), content_encoding="gzip"), GOOD)
    cut = Expected(400, "CONTENT_ENCODING_MALFORMED", "CONTENT_ENCODING_MALFORMED")
    yield Row("compressed, cut off", sent(signer, path, gzip.compress(body)[:-1], content_encoding="gzip"), cut)
    unknown = Expected(415, "CONTENT_ENCODING_UNSUPPORTED", "CONTENT_ENCODING_UNSUPPORTED")
    yield Row("compressed otherwise", sent(signer, path, body, content_encoding="br"), unknown)


def doubled(body: bytes) -> bytes:
    """With its first member twice: the second one counts, and is the same."""
    start = body.index(b"{")
    name = json.loads(body[start:][1 : body[start:].index(b":")])
    value = json.loads(body)
    value = value[0][name] if isinstance(value, list) else value[name]
    return body[: start + 1] + f"{json.dumps(name)}: {json.dumps(value)}, ".encode() + body[start + 1 :]


def events(signer: Signer, count: int, event: JsonValue = None) -> bytes:
    """The good request with its event, or another one, so many times."""
    assert signer.events is not None
    document = signer.with_events([signer.events[0] if event is None else event] * count)
    return json.dumps(document, separators=(",", ":")).encode()


def announced(path: str, signer: Signer, size: int) -> bytes:
    headers = signer.signed(b"", f"https://test{path}") | {"content-length": str(size)}
    return request_bytes(path, headers=headers, length=False)


def chunked(path: str, signer: Signer, size: int) -> bytes:
    headers = signer.signed(b"", f"https://test{path}") | {"transfer-encoding": "chunked"}
    return request_bytes(path, b"%x\r\n%b\r\n0\r\n\r\n" % (size, b" " * size), headers, length=False)


@asynccontextmanager
async def running(directory: Path, signer: Signer, door: str) -> AsyncIterator[tuple[Front, str]]:
    """A front that knows the provider's secret, and the path to send to."""
    name = signer.provider.name
    owner = f"_app/{name}" if door == "app" else WORKSPACE
    (directory / "secrets" / owner).mkdir(parents=True)
    (directory / "secrets" / owner / name).write_text(f"a newer one\n{SECRET}\n")
    apps = json.dumps({name: {"provider": name, "tenant": "'t'"}}) if door == "app" else ""
    async with running_front(
        directory,
        body_bytes_max=CAP,
        bodies_bytes_max=4 * CAP,
        is_prompt=door != "usual way",
        creates=True,
        apps=apps,
        routes={name: {"t": WORKSPACE}} if door == "app" else {},
    ) as front:
        yield front, f"/v1/apps/{name}/webhooks" if door == "app" else f"/v1/workspaces/{WORKSPACE}/webhooks/{name}"


def shown(envelope: types_pb2.Envelope) -> tuple[object, ...]:
    """What an envelope is, but for what is new with each arrival."""
    changes = [(each.kind, each.path, each.provider_object_id, each.content) for each in envelope.changes]
    return envelope.workspace_id, envelope.provider, envelope.delivery_id, envelope.failure.reason, changes


def told(response: Response) -> str:
    return str(json.loads(response.body).get("error", ""))


SIGNERS = every_signer()
CASES = [
    (signer, door)
    for signer in SIGNERS
    for door in ("short way", "usual way", "app")
    if door != "app" or signer.provider.definition.form is BodyForm.EVENT
]


@pytest.mark.parametrize(("signer", "door"), CASES, ids=[f"{signer.name}-{door}" for signer, door in CASES])
async def test_every_request_has_its_status_and_its_effect(
    tmp_path: Path, signer: Signer, door: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, signer, door) as (front, path):
        good: list[tuple[object, ...]] = []
        for row in rows(signer, path):
            front.clock.set_now_us((signer.now_s + row.late_s) * 1_000_000)
            before = front.rejected.totals()
            answers = await ask_all(front, row.data, 2 if row.name == "replayed" else 1)
            accepted = [shown(each) for each in front.intake.accepted]
            kept = [(each.HasField("raw"), each.failure.message) for each in front.intake.accepted]
            front.intake.accepted.clear()
            good = good or accepted
            found = Expected(
                answers[0].status,
                told(answers[0]),
                newest_reason(front) if front.rejected.totals() != before else "",
                str(accepted[0][3]) if accepted else "",
                len(accepted) // len(good) if accepted and accepted[0][3] == "" and accepted[0][4] else 0,
            )
            assert (row.name, found) == (row.name, row.expected)
            assert {answer.status for answer in answers} == {row.expected.status}
            if row.expected.copies:
                assert_alike(accepted, good, row.expected.copies)
            if row.expected.letter:
                assert len(accepted) == 1, row.name
                assert kept[0][0] or row.name == "empty body", "a dead letter without what was sent"
        assert [each for each in caplog.records if each.levelname != "DEBUG"] == []
        assert SECRET not in str(front.rejected.newest("", 0, 1_000))


def assert_alike(accepted: list[tuple[object, ...]], good: list[tuple[object, ...]], copies: int) -> None:
    assert len(accepted) == copies * len(good)
    for each, expected in zip(accepted, good * copies, strict=True):
        assert each == expected


def newest_reason(front: Front) -> str:
    (entry,) = front.rejected.newest("", 0, 1)
    assert entry.workspace and entry.provider, entry  # noqa: PT018 - both or none
    return entry.reason


async def ask_all(front: Front, data: bytes, count: int) -> list[Response]:
    """The answers on one connection."""
    client = await Client.connect(front.address)
    try:
        client.send(data)
        answers = [await client.response() for _ in range(count)]
        return [each for each in answers if each is not None]
    finally:
        await client.close()
