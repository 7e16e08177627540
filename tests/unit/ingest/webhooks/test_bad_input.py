"""Every provider × every bad input: the exact status, and what is left. Providers that come later are held to it.

Requests go to the real port, the short way and the usual one. Whatever is wrong, nothing is a 5xx, nothing is logged as
an error, and what was not proven leaves nothing but a line in the list of refused requests.
"""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from unittest.mock import Mock

import pytest

from relayfile.ingest.providers.adapter import ITEMS_MAX, Provider, RequestFacts
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks import express, webhook
from relayfile.ingest.webhooks.signature import Scheme, SignedRequest, sign
from tests.support.provider_fixtures import names, request
from tests.unit.ingest.front import NOW_US, WORKSPACE, Front, ask, request_bytes, running_front

PROVIDERS: Final = ProviderRegistry.load(50_000)
SECRET: Final = "whsec_c2VjcmV0LW9mLWV2ZXJ5LXNlbmRlcg=="
CAP: Final = 300_000
LIST_CAP: Final = 8_000_000
NOW_S: Final = NOW_US // 1_000_000
SENT_MS: Final[Mapping[str, str]] = {"linear": "webhookTimestamp"}
"""Of providers with a time in the body the member that has it, in milliseconds."""
WITHOUT_FIXTURES: Final[Mapping[str, RequestFacts]] = {
    "github": RequestFacts(
        {"x-github-event": "label", "x-github-delivery": "d-1"},
        b'{"action": "created", "label": {"id": 7}, "repository": {"id": 1, "name": "r", "owner": {"login": "o"}}}',
    ),
    "generic": RequestFacts(
        {"webhook-id": "m-1"}, b'{"provider": "crm", "delivery_id": "d", "changes": [{"path": "/crm/1", "content": 1}]}'
    ),
}


class Left(NamedTuple):
    """What a request leads to."""

    status: int
    envelopes: int = 0
    """Accepted ones."""
    failures: str = ""
    """The reason of the dead letters among them; several, or of a part only: with their counts."""
    refused: str = ""
    """The reason in the list of refused requests."""


@dataclass(frozen=True)
class Sender:
    """A provider with a request that is good."""

    provider: Provider
    scheme: Scheme
    facts: RequestFacts

    def body(self, late_s: int = 0) -> bytes:
        member = SENT_MS.get(self.provider.name)
        if member is None:
            return self.facts.body
        return json.dumps(json.loads(self.facts.body) | {member: (NOW_S - late_s) * 1000}).encode()

    def head(self, body: bytes, late_s: int = 0, secret: str = SECRET) -> dict[str, str]:
        """The proof of ``body``."""
        scheme = self.scheme
        time = str(round((NOW_S - late_s) / scheme.timestamp_unit_s))
        head = {name: text for name, text in self.facts.headers.items() if "signature" not in name}
        head |= {name: text for name, text in {scheme.id_header: "m-1", scheme.timestamp_header: time}.items() if name}
        url = f"https://test{self.target}"
        return head | {scheme.header: sign(scheme, SignedRequest(head, body, "POST", url), secret, time)}

    @property
    def target(self) -> str:
        kind = "envelopes" if self.provider.name == "generic" else f"webhooks/{self.provider.name}"
        return f"/v1/workspaces/{WORKSPACE}/{kind}"

    @property
    def is_timed(self) -> bool:
        return self.scheme.is_timed or self.scheme.body_time is not None

    @property
    def stale_s(self) -> int:
        """An age at which its signed time does not count any more."""
        return 301 + round(self.scheme.repeats_for_s)

    @property
    def items(self) -> tuple[str, ...] | None:
        return self.provider.definition.delivery.items

    def listed(self, elements: object) -> bytes:
        """A body that is, or has where the provider has it, this list."""
        for step in reversed(self.items or ()):
            elements = {step: elements}
        return json.dumps(elements).encode()


def senders() -> Iterator[Sender]:
    for name, provider in PROVIDERS.items():
        candidates = [request(name, fixture) for fixture in names(name)] or [WITHOUT_FIXTURES[name]]
        facts = next(each for each in candidates if is_good(provider, each))
        for scheme in provider.definition.proof.schemes:
            assert (scheme.body_time is not None) is (name in SENT_MS), "the test must know where the time is"
            yield Sender(provider, scheme, facts)


def is_good(provider: Provider, facts: RequestFacts) -> bool:
    made = provider.normalise(facts)
    return all(each.envelope.changes and not each.envelope.HasField("failure") for each in made)


def post(sender: Sender, body: bytes, head: dict[str, str] | None = None) -> bytes:
    return request_bytes(sender.target, body, sender.head(body) if head is None else head)


def chunked(sender: Sender, body: bytes) -> bytes:
    head = sender.head(body) | {"transfer-encoding": "chunked"}
    return request_bytes(sender.target, headers=head, length=False) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def bomb(sender: Sender) -> bytes:
    body = gzip.compress(b" " * (CAP + 1))
    return post(sender, body, sender.head(body) | {"content-encoding": "gzip"})


def repeated_key(sender: Sender) -> bytes:
    """The first member of the outermost object twice, with the same value."""
    text = sender.body().decode()
    at = text.index("{") + 1
    key, _, rest = text[at:].partition(":")
    value, _ = json.JSONDecoder().raw_decode(rest.lstrip())
    return f"{text[:at]}{key}: {json.dumps(value)}, {text[at:]}".encode()


GOOD: Final = Left(200, envelopes=-1)
"""As the good request."""
MALFORMED: Final = Left(200, 1, "MALFORMED_JSON")
CASES: Final[Mapping[str, tuple[Callable[[Sender], bytes], Left]]] = {
    "good": (lambda of: post(of, of.body()), GOOD),
    "wrong signature": (
        lambda of: post(of, of.body(), of.head(of.body(), secret="another")),
        Left(401, refused="SIGNATURE_MISMATCH"),
    ),
    "missing header": (lambda of: post(of, of.body(), {}), Left(401, refused="SIGNATURE_MISSING")),
    "old timestamp": (
        lambda of: post(of, of.body(of.stale_s), of.head(of.body(of.stale_s), of.stale_s)),
        Left(401, refused="TIMESTAMP_STALE"),
    ),
    "early timestamp": (
        lambda of: post(of, of.body(-301), of.head(of.body(-301), -301)),
        Left(401, refused="TIMESTAMP_STALE"),
    ),
    "replayed": (lambda of: post(of, of.body()), GOOD),
    "truncated JSON": (lambda of: post(of, of.body()[:-1]), MALFORMED),
    "wrong content type": (lambda of: post(of, of.body(), of.head(of.body()) | {"content-type": "text/csv"}), GOOD),
    "empty body": (lambda of: post(of, b""), MALFORMED),
    "body over the cap": (lambda of: post(of, b" " * (CAP + 1)), Left(413, refused="TOO_LARGE")),
    "body over the cap, without length": (lambda of: chunked(of, b" " * (CAP + 1)), Left(413, refused="TOO_LARGE")),
    "gzip bomb": (bomb, Left(413, refused="TOO_LARGE")),
    "repeated key": (lambda of: post(of, repeated_key(of)), GOOD),
    "deep nesting": (lambda of: post(of, b"[" * 100_000 + b"]" * 100_000), MALFORMED),
    "invalid UTF-8": (lambda of: post(of, of.body().replace(b'"', b'"\xff', 1)), MALFORMED),
    "no object": (lambda of: post(of, of.listed([5])), Left(200, 1, "UNEXPECTED_SHAPE")),
}


def expected(sender: Sender, case: str) -> Left:
    """What the table says, but for what a provider's own form makes different."""
    left, name = CASES[case][1], sender.provider.name
    if case in ("old timestamp", "early timestamp") and not sender.is_timed:
        left = GOOD
    if case == "no object" and sender.scheme.body_time is not None:
        return Left(401, refused="TIMESTAMP_MISSING")
    if name == "generic" and left.failures:
        left = replace_failure(left, case)
    if left is GOOD:
        return Left(200, len(sender.provider.normalise(sender.facts)))
    return left


def replace_failure(left: Left, case: str) -> Left:
    """The generic envelope is decoded by its form: what has another one is no envelope."""
    return left._replace(failures="INVALID_ENVELOPE") if case in ("deep nesting", "no object") else left


async def leads_to(front: Front, data: bytes) -> Left:
    """Send a request, and take away what it left."""
    front.intake.accepted.clear()
    before = sum(front.rejected.totals().values())
    response = await ask(front.address, data)
    refused = front.rejected.newest("", 0, 1)[0].reason if sum(front.rejected.totals().values()) > before else ""
    envelopes = front.intake.accepted
    reasons = Counter(each.failure.reason for each in envelopes if each.HasField("failure"))
    failures = ", ".join(reasons) if sum(reasons.values()) == len(envelopes) else ", ".join(map(str, reasons.items()))
    return Left(response.status, len(envelopes), failures, refused)


async def delivery_ids(front: Front, sender: Sender) -> list[str]:
    front.intake.accepted.clear()
    assert (await ask(front.address, post(sender, sender.body()))).status == 200
    return [each.delivery_id for each in front.intake.accepted]


every_sender = pytest.mark.parametrize(
    "sender", list(senders()), ids=[f"{each.provider.name}-{each.scheme.header}" for each in senders()]
)


def secrets(directory: Path) -> None:
    folder = directory / "secrets" / WORKSPACE
    folder.mkdir(parents=True)
    for name in PROVIDERS:
        (folder / name).write_text(f"{SECRET}\n")


@every_sender
@pytest.mark.parametrize("is_prompt", [True, False], ids=["short", "usual"])
async def test_each_input_has_its_status_and_leaves_what_it_should(
    sender: Sender, is_prompt: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets(tmp_path)
    log = Mock()
    for module in (webhook, express):
        monkeypatch.setattr(module, "_log", log)
    async with running_front(tmp_path, body_bytes_max=CAP, bodies_bytes_max=4 * CAP, is_prompt=is_prompt) as front:
        found = {case: await leads_to(front, make(sender)) for case, (make, _) in CASES.items()}
        ids = [await delivery_ids(front, sender), await delivery_ids(front, sender)]
    assert found == {case: expected(sender, case) for case in CASES}
    assert ids[0] == ids[1], "a replayed request is the same delivery"
    assert log.mock_calls == []


@every_sender
async def test_a_list_of_ten_thousand(sender: Sender, tmp_path: Path) -> None:
    if sender.items is None:
        body, left = sender.listed([{}] * ITEMS_MAX), Left(200, 1, "UNEXPECTED_SHAPE")
        if sender.provider.name == "generic":
            left = left._replace(failures="INVALID_ENVELOPE")
        if sender.scheme.body_time is not None:
            left = Left(401, refused="TIMESTAMP_MISSING")
    else:
        element = sender.provider.normalise(sender.facts)[0].document
        body, left = sender.listed([element] * ITEMS_MAX), Left(200, ITEMS_MAX)
    secrets(tmp_path)
    async with running_front(tmp_path, body_bytes_max=LIST_CAP, bodies_bytes_max=2 * LIST_CAP) as front:
        assert await leads_to(front, post(sender, body)) == left
