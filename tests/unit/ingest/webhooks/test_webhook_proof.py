"""What the public port does with challenges, handshakes, signed times and URLs, and bodies that are lists."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relayfile.ingest.providers.adapter import Provider
from relayfile.ingest.providers.provider_file import load_provider
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks import secret_file
from relayfile.ingest.webhooks.signature import SignedRequest, sign
from tests.unit.ingest.front import NOW_US, WORKSPACE, Front, Response, ask, request_bytes, running_front

SHOP = """
name = "shop"
version = "1"
[signature]
header = "X-Sign"
signed = "{url}{body}"
body_time = "sent"
timestamp_unit = "ms"
tolerance_s = 60
[challenge]
events = ["hello"]
answer = "word"
[handshake]
header = "X-Hook-Secret"
[delivery]
items = "events"
id = "number"
event = "type"
[[rules]]
events = ["thing"]
object = "thing"
id = "{number}"
path = "/shop/{number}.json"
"""
QUIZ = SHOP.replace('"shop"', '"quiz"').replace('header = "X-Hook-Secret"', 'secret = "token"')
HOOK = f"/v1/workspaces/{WORKSPACE}/webhooks/shop"
QUIZ_HOOK = f"/v1/workspaces/{WORKSPACE}/webhooks/quiz"
URL = f"https://hooks.example{HOOK}"


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    (tmp_path / "providers").mkdir()
    (tmp_path / "providers" / "shop.toml").write_text(SHOP)
    (tmp_path / "providers" / "quiz.toml").write_text(QUIZ)
    options = {
        "providers_dir": tmp_path / "providers",
        "public_url": "https://hooks.example",
        "apps": '{"wiki": {"provider": "quiz", "tenant": "shop"}}',
    }
    async with running_front(tmp_path, body_bytes_max=2_000_000, bodies_bytes_max=9_000_000, **options) as running:  # type: ignore[arg-type]  # by name
        yield running


def configure(tmp_path: Path, text: str, provider: str = "shop") -> Path:
    path = tmp_path / "secrets" / WORKSPACE / provider
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def signed(tmp_path: Path, body: bytes, secret: str = "a secret", url: str = URL) -> dict[str, str]:
    scheme = Provider(load_provider(tmp_path / "providers" / "shop.toml"), 1000).scheme
    assert scheme is not None
    return {"x-sign": sign(scheme, SignedRequest({}, body, url=url), secret)}


def payload(*events: object, sent_ms: int = NOW_US // 1000) -> bytes:
    return json.dumps({"sent": sent_ms, "events": events}).encode()


def logged(front: Front) -> str:
    return front.rejected.newest("", 0, 1)[0].reason


async def post(front: Front, tmp_path: Path, body: bytes, secret: str = "a secret") -> Response:
    return await ask(front.address, request_bytes(HOOK, body, signed(tmp_path, body, secret)))


async def test_a_list_becomes_envelopes_each_with_its_own_ending(front: Front, tmp_path: Path) -> None:
    configure(tmp_path, "a secret\n")
    response = await post(
        front, tmp_path, payload({"type": "thing", "number": 1}, {"type": "thing"}, {"type": "else", "number": 3})
    )
    good, bad, ignored = front.intake.accepted
    assert (response.status, front.intake.calls) == (200, 1)
    assert json.loads(response.body) == {"envelope_id": good.envelope_id}
    assert len({good.envelope_id, bad.envelope_id, ignored.envelope_id}) == 3
    assert (good.delivery_id, good.changes[0].path, good.HasField("raw")) == ("1", "/shop/1.json", False)
    assert (bad.failure.reason, json.loads(bad.raw.body)) == ("UNEXPECTED_SHAPE", {"events": [{"type": "thing"}]})
    assert (list(ignored.changes), ignored.HasField("failure"), ignored.delivery_id) == ([], False, "3")
    assert {each.adapter_version for each in front.intake.accepted} == {"shop/1"}


async def test_a_list_of_ten_thousand_leaves_others_their_turn(front: Front, tmp_path: Path) -> None:
    configure(tmp_path, "a secret\n")
    body = payload(*({"type": "thing", "number": number} for number in range(10_000)))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.get_running_loop().create_task(count())
    response = await post(front, tmp_path, body)
    counting.cancel()
    assert (response.status, len(front.intake.accepted), front.intake.calls) == (200, 10_000, 1)
    assert turns > 49


async def test_the_time_in_the_body_is_checked_after_the_signature(front: Front, tmp_path: Path) -> None:
    configure(tmp_path, "a secret\n")
    early = payload(sent_ms=NOW_US // 1000 - 60_001)
    assert (await post(front, tmp_path, early)).status == 401
    assert logged(front) == "TIMESTAMP_STALE"
    assert (await post(front, tmp_path, early, "wrong")).status == 401
    assert logged(front) == "SIGNATURE_MISMATCH"
    assert (await post(front, tmp_path, b"{}")).status == 401
    assert logged(front) == "TIMESTAMP_MISSING"
    assert (await post(front, tmp_path, b"{")).status == 200
    assert [each.failure.reason for each in front.intake.accepted] == ["MALFORMED_JSON"]


async def test_the_url_that_is_signed_is_the_public_one(front: Front, tmp_path: Path) -> None:
    configure(tmp_path, "a secret\n")
    body = payload()
    headers = signed(tmp_path, body, url=f"{URL}?a=b")
    assert (await ask(front.address, request_bytes(f"{HOOK}?a=b", body, headers))).status == 200
    assert (await ask(front.address, request_bytes(HOOK, body, headers))).status == 401


async def test_without_a_public_url_it_is_that_of_the_host_header(tmp_path: Path) -> None:
    (tmp_path / "providers").mkdir()
    (tmp_path / "providers" / "shop.toml").write_text(SHOP)
    configure(tmp_path, "a secret\n")
    body = payload()
    async with running_front(tmp_path, providers_dir=tmp_path / "providers") as front:
        headers = signed(tmp_path, body, url=f"https://test{HOOK}")
        assert (await ask(front.address, request_bytes(HOOK, body, headers))).status == 200


async def test_a_challenge_is_answered_only_when_it_is_signed(front: Front, tmp_path: Path) -> None:
    configure(tmp_path, "a secret\n")
    challenge = json.dumps({"sent": NOW_US // 1000, "type": "hello", "word": "w1"}).encode()
    response = await post(front, tmp_path, challenge)
    assert (response.status, response.body) == (200, b"w1")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert (await post(front, tmp_path, challenge, "wrong")).status == 401
    assert (await ask(front.address, request_bytes(HOOK, challenge))).status == 401
    assert front.intake.calls == 0


async def test_an_awaited_handshake_brings_the_secret_once(front: Front, tmp_path: Path) -> None:
    path = configure(tmp_path, "# ours\nolder secret\n")
    secret_file.await_handshake(tmp_path / "secrets", WORKSPACE, "shop", NOW_US + 60_000_000)
    response = await ask(front.address, request_bytes(HOOK, b"", {"x-hook-secret": "brought by hand"}))
    assert (response.status, logged(front)) == (401, "HANDSHAKE_MALFORMED")
    response = await ask(front.address, request_bytes(HOOK, b"", {"x-hook-secret": "brought-by-hand"}))
    assert (response.status, response.headers["x-hook-secret"]) == (200, "brought-by-hand")
    assert path.read_text() == "brought-by-hand\n# ours\nolder secret\n"
    for secret in ("brought-by-hand", "older secret"):
        assert (await post(front, tmp_path, payload(), secret)).status == 200
    response = await ask(front.address, request_bytes(HOOK, b"", {"x-hook-secret": "another-one"}))
    assert (response.status, logged(front)) == (401, "HANDSHAKE_NOT_AWAITED")
    assert b"hand" not in response.body
    assert "another" not in str(front.rejected.newest("", 0, 9))


async def test_an_app_shakes_hands_too(front: Front, tmp_path: Path) -> None:
    secret_file.await_handshake(tmp_path / "secrets", "_app/wiki", "quiz", NOW_US + 60_000_000)
    body = json.dumps({"token": "a-long-token"}).encode()
    assert (await ask(front.address, request_bytes("/v1/apps/wiki/webhooks", body))).status == 200
    assert (tmp_path / "secrets" / "_app" / "wiki" / "quiz").read_text() == "a-long-token\n"


async def test_secrets_of_both_sources_rotate_without_a_restart(front: Front, tmp_path: Path) -> None:
    github = ProviderRegistry.load(1000)["github"].scheme
    assert github is not None
    hook, body = f"/v1/workspaces/{WORKSPACE}/webhooks/github", b"{}"

    async def statuses(*secrets: str) -> list[int]:
        heads = [{"x-hub-signature-256": sign(github, SignedRequest({}, body), each)} for each in secrets]
        return [(await ask(front.address, request_bytes(hook, body, head))).status for head in heads]

    every = ("new secret", "old secret", "first", "second")  # the first two are in the settings
    assert await statuses(*every) == [200, 200, 401, 401]
    path = configure(tmp_path, "first\n", "github")
    front.clock.advance(1)
    assert await statuses(*every) == [200, 200, 200, 401]
    path.with_name("github.new").write_text("second\nfirst\n")
    path.with_name("github.new").replace(path)
    front.clock.advance(1)
    assert await statuses(*every) == [200, 200, 200, 200]
    path.write_text("second\n")
    front.clock.advance(1)
    assert await statuses(*every) == [200, 200, 401, 200]


async def test_a_handshake_after_its_time_is_refused(front: Front, tmp_path: Path) -> None:
    secret_file.await_handshake(tmp_path / "secrets", WORKSPACE, "shop", NOW_US + 1_000_000)
    front.clock.advance(1)
    response = await ask(front.address, request_bytes(HOOK, b"", {"x-hook-secret": "brought-by-hand"}))
    assert (response.status, logged(front)) == (401, "HANDSHAKE_NOT_AWAITED")


async def test_only_a_handshake_may_come_unsigned(front: Front, tmp_path: Path) -> None:
    secret_file.await_handshake(tmp_path / "secrets", WORKSPACE, "quiz", NOW_US + 60_000_000)
    assert (await ask(front.address, request_bytes(QUIZ_HOOK, payload()))).status == 401
    assert logged(front) == "SIGNATURE_MISSING"
    body = json.dumps({"token": "a-long-token"}).encode()
    response = await ask(front.address, request_bytes(QUIZ_HOOK, body))
    assert (response.status, response.body) == (200, b"{}")
    assert (tmp_path / "secrets" / WORKSPACE / "quiz").read_text() == "a-long-token\n"
    assert (await ask(front.address, request_bytes(QUIZ_HOOK, body))).status == 401
    assert logged(front) == "HANDSHAKE_NOT_AWAITED"


async def test_of_two_processes_one_takes_the_handshake(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    secret_file.await_handshake(directory, WORKSPACE, "shop", NOW_US + 1_000_000)
    secret_file.take_over(directory, WORKSPACE, "shop", "the-first-one", NOW_US)
    with pytest.raises(secret_file.HandshakeRefused, match="HANDSHAKE_NOT_AWAITED"):
        secret_file.take_over(directory, WORKSPACE, "shop", "the-second-one", NOW_US)
    assert secret_file.read(directory / WORKSPACE / "shop").secrets == ("the-first-one",)


async def test_a_workspace_without_a_secret_is_told_nothing_but_that(front: Front) -> None:
    response = await ask(front.address, request_bytes(HOOK, b"", {"x-hook-secret": "brought-by-hand"}))
    assert (response.status, logged(front)) == (401, "HANDSHAKE_NOT_AWAITED")
    path = HOOK.replace(WORKSPACE, "nobody")
    assert (await ask(front.address, request_bytes(path, b"", {"x-hook-secret": "brought-by-hand"}))).status == 404


async def test_a_secret_that_cannot_be_stored_is_our_trouble(front: Front, tmp_path: Path) -> None:
    path = configure(tmp_path, "".join(f"secret-number-{number}\n" for number in range(16)))
    secret_file.await_handshake(tmp_path / "secrets", WORKSPACE, "shop", NOW_US + 60_000_000)
    handshake = request_bytes(HOOK, b"", {"x-hook-secret": "brought-by-hand"})
    response = await ask(front.address, handshake)
    assert (response.status, response.headers["retry-after"]) == (503, "60")
    path.unlink()
    secret_file.await_handshake(tmp_path / "secrets", WORKSPACE, "shop", NOW_US + 60_000_000)
    path.with_name(".shop.new").mkdir()  # what the new text is written to cannot be made
    front.clock.advance(1)
    assert (await ask(front.address, handshake)).status == 503
    path.with_name(".shop.new").rmdir()
    assert (await ask(front.address, handshake)).status == 200, "the window stayed open"
