import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey

from relayfile.auth import FetchedKeys, KeyStore, KeyUrl, TokenVerifier
from relayfile.auth.fetched_keys import LOOK_AGAIN_S, STALE_GRACE_S
from relayfile.auth.key_url import KEY_SET_BYTES_MAX
from relayfile.auth.tokens import _REGISTRY
from relayfile.clock import ManualClock
from relayfile.errors import StartRefused, Unauthenticated, Unavailable

NOW_S = 1_800_000_000
REFRESH_S = 300.0


class Issuer:
    """Somebody else's keys and tokens; `fetch` is their URL."""

    def __init__(self) -> None:
        self.keys: dict[str, OKPKey] = {}
        self.is_away = False
        self.fetched = 0

    def rotate(self, *kids: str) -> None:
        self.keys = {
            kid: self.keys.get(kid)
            or OKPKey.import_key(OKPKey.generate_key("Ed25519").as_dict(private=True) | {"kid": kid})
            for kid in kids
        }

    def token(self, kid: str) -> str:
        claims = {"aud": "relayfile", "sub": "agent", "wks": "acme", "exp": NOW_S + 86_400}
        return jwt.encode({"alg": "EdDSA", "kid": kid}, claims, self.keys[kid], registry=_REGISTRY)

    async def fetch(self) -> bytes:
        self.fetched += 1
        if self.is_away:
            raise Unavailable(what="key set")
        return json.dumps({"keys": [key.as_dict(private=False) for key in self.keys.values()]}).encode()


class House:
    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock(now_us=NOW_S * 1_000_000)
        self.issuer = Issuer()
        self.fetched = FetchedKeys(self.issuer.fetch, self.clock, REFRESH_S)
        store = KeyStore(directory)
        store.signing_key()
        self.verifier = TokenVerifier(store.public_file, self.clock, self.fetched)


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path / "keys")
    house.issuer.rotate("k1")
    return house


async def test_nothing_is_known_before_the_keys_came(house: House) -> None:
    with pytest.raises(Unavailable):
        house.verifier.verify(house.issuer.token("k1"))
    assert await house.fetched.refresh()
    assert house.verifier.verify(house.issuer.token("k1")).subject == "agent"


async def test_keys_that_cannot_be_refreshed_count_a_minute_longer(house: House) -> None:
    token = house.issuer.token("k1")
    assert await house.fetched.refresh()
    house.issuer.is_away = True
    house.clock.advance(REFRESH_S + STALE_GRACE_S)
    assert not await house.fetched.refresh()
    assert house.verifier.verify(token).subject == "agent"
    house.clock.advance(1)
    assert house.verifier.verify(token).subject == "agent", "a verified token counts until it expires"
    house.issuer.rotate("k1")
    with pytest.raises(Unavailable):
        house.verifier.verify(house.issuer.token("k1") + "x")
    house.issuer.is_away = False
    assert await house.fetched.refresh()
    with pytest.raises(Unauthenticated):
        house.verifier.verify(house.issuer.token("k1") + "x")


async def test_a_key_that_was_taken_back_is_no_longer_trusted(house: House) -> None:
    token = house.issuer.token("k1")
    assert await house.fetched.refresh()
    assert house.verifier.verify(token).subject == "agent"
    house.issuer.rotate("k2")
    assert await house.fetched.refresh()
    with pytest.raises(Unauthenticated, match="not known"):
        house.verifier.verify(token)
    assert house.verifier.verify(house.issuer.token("k2")).subject == "agent"


async def test_a_new_key_is_looked_for_at_once_and_strange_ones_not_too_often(house: House) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(house.verifier.run())
        await until(lambda: house.issuer.fetched == 1)
        house.issuer.rotate("k1", "k2")
        house.clock.advance(LOOK_AGAIN_S)
        assert (await house.verifier.identify(house.issuer.token("k2"))).subject == "agent"
        assert house.issuer.fetched == 2
        house.issuer.rotate("k3")
        strange = house.issuer.token("k3")
        house.issuer.rotate("k1")
        for _ in range(10):
            with pytest.raises(Unauthenticated, match="not known"):
                await house.verifier.identify(strange)
        assert house.issuer.fetched == 2, "asked again within a moment"
        house.clock.advance(LOOK_AGAIN_S)
        with pytest.raises(Unauthenticated, match="not known"):
            await house.verifier.identify(strange)
        assert house.issuer.fetched == 3
        running.cancel()


async def test_an_answer_that_is_no_key_set_changes_nothing(house: House) -> None:
    assert await house.fetched.refresh()
    known = house.issuer.token("k1")
    for document in (
        b"",
        b"[]",
        b"{}",
        b'{"keys": [1]}',
        b'{"keys": [{"kty": "oct", "k": "x", "kid": "k1"}]}',
        b"\xff",
    ):

        async def answer(document: bytes = document) -> bytes:
            return document

        house.fetched._fetch = answer
        assert not await house.fetched.refresh()
        assert house.verifier.verify(known).subject == "agent"


async def until(holds: object) -> None:
    assert callable(holds)
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - turns of the loop, not time
            await asyncio.sleep(0)


@asynccontextmanager
async def web(answer: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys?all=1"
    finally:
        server.close()
        await server.wait_closed()


async def test_a_url_answers_with_its_body() -> None:
    async with web(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as url:
        assert await KeyUrl.parse(url).fetch() == b"{}"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (KEY_SET_BYTES_MAX + 1),
        b"",
    ],
)
async def test_everything_else_is_no_answer(answer: bytes) -> None:
    async with web(answer) as url:
        with pytest.raises(Unavailable):
            await KeyUrl.parse(url).fetch()


@pytest.mark.parametrize(
    "url", ["", "keys", "http://example.com/keys", "https://", "https://user@host/", "ftp://localhost/", "https://h:x/"]
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(StartRefused, match="RELAYFILE_JWKS_URL"):
        KeyUrl.parse(url)
