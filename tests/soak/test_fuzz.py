"""The fuzz targets for minutes each, from the fixtures of all providers on."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import PROVIDERS, TARGETS

pytest.importorskip("atheris", reason="atheris has no wheel for this Python or platform")

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60 * float(os.environ.get("SOAK_MINUTES", "30")) / 6
"""Of each target."""
BYTES_MAX = {"envelope": 4_000, "spool_row": 4_000}
"""Of one input; 20,000 where none is said. Two bytes are a change, and ten thousand bad ones take a quarter second."""


@pytest.mark.parametrize("target", TARGETS)
async def test_nothing_unexpected_is_found(target: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, fixture in enumerate(sorted((ROOT / "tests" / "fixtures" / "providers").glob("*/*.json"))):
        seed = _seed(target, fixture, number)
        if seed:
            (corpus / str(number)).write_bytes(seed)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fuzz",
        target,
        f"-max_total_time={SECONDS:.0f}",
        f"-max_len={BYTES_MAX.get(target, 20_000)}",
        f"-artifact_prefix={tmp_path}/",
        str(corpus),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode(errors="replace")
    assert process.returncode == 0, output[-5_000:]


def _seed(target: str, fixture: Path, number: int) -> bytes:
    """What ``target`` starts from: for `http` valid requests, whole and in pieces of every size; empty: nothing."""
    provider, body = fixture.parent.name, fixture.read_bytes()
    if target == "http":
        path = f"/v1/workspaces/w/webhooks/{provider}"
        if number % 2:
            head, sent = "transfer-encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        else:
            head, sent = f"content-length: {len(body)}", body
        return bytes([number % 256]) + f"POST {path} HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n".encode() + sent
    names = [each.name for each in PROVIDERS]
    return bytes([names.index(provider), number % 256]) + body if provider in names else b""
