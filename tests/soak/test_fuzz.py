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


@pytest.mark.parametrize("target", TARGETS)
async def test_nothing_unexpected_is_found(target: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, fixture in enumerate(sorted((ROOT / "tests" / "fixtures" / "providers").glob("*/*.json"))):
        names = [provider.name for provider in PROVIDERS]
        if fixture.parent.name in names:
            body = bytes([names.index(fixture.parent.name), number % 256]) + fixture.read_bytes()
            (corpus / str(number)).write_bytes(body)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fuzz",
        target,
        f"-max_total_time={SECONDS:.0f}",
        "-max_len=20000",
        f"-artifact_prefix={tmp_path}/",
        str(corpus),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode(errors="replace")
    assert process.returncode == 0, output[-5_000:]
