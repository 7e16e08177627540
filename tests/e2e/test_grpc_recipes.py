"""The session of docs/grpc.md, with `buf curl` as it stands, and with grpcurl where that is installed."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relayfile.client.recommended import service_config
from tests.e2e.test_readme import shell, until_greeted
from tests.support.recipes import Bound, Recipe, all_shown, as_shown, blocks, camel, decoded, objects, recipes
from tests.support.usual_ports import choosing_ports

ANSWER_TIMEOUT_S = 30
PAUSE_S = 0.1
"""Between two looks at what is there in a moment."""


@asynccontextmanager
async def system(folder: Path) -> AsyncIterator[None]:
    async with choosing_ports():
        up = await shell("exec relayfile up", folder)
        try:
            await until_greeted(up)
        except BaseException:
            os.killpg(up.pid, signal.SIGKILL)
            raise
    try:
        yield
    finally:
        os.killpg(up.pid, signal.SIGINT)
        await up.communicate()


async def environment(folder: Path) -> dict[str, str]:
    """The variables that the page sets."""
    (setup,) = blocks("setup")
    process = await shell(f"{setup}\nenv -0", folder)
    printed = (await process.communicate())[0].decode()
    assert process.returncode == 0, printed
    before = dict(os.environ)
    found = dict(each.split("=", 1) for each in printed.split("\0") if "=" in each)
    return {name: value for name, value in found.items() if before.get(name) != value}


class Tool:
    """Runs one of the two commands of a recipe, in a folder, with variables."""

    def __init__(self, name: str, folder: Path, variables: Mapping[str, str], bound: Bound) -> None:
        self._name = name
        self._folder = folder
        self._variables = variables
        self._bound = bound

    async def run(self, recipe: Recipe) -> None:
        command = recipe.buf if self._name == "buf" else recipe.grpcurl
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", f"exec {command}", cwd=self._folder, env={**os.environ, **self._variables, **self._bound},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            if recipe.method.partition("/")[2].startswith("Watch"):
                await self._until_shown(recipe, process)
            else:
                out, err = await process.communicate()
                self._check(recipe, out.decode(), err.decode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    def _check(self, recipe: Recipe, out: str, err: str) -> None:
        if recipe.lines:
            assert set(recipe.lines) <= {line.replace("FileService.", "FileService/") for line in out.split()}, out
        elif recipe.error is not None:
            code, details = self._error(err)
            assert code == recipe.error["code"], err
            for shown in recipe.details:
                assert any(as_shown(shown, each, self._bound) for each in details), err
        else:
            assert all_shown(recipe.answers, self._messages(out), self._bound), f"{recipe.method}: {out}{err}"

    async def _until_shown(self, recipe: Recipe, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        out = ""
        while not all_shown(recipe.answers, self._messages(out), self._bound):
            line = (await process.stdout.readline()).decode()
            assert line, f"it ended: {out}"
            out += line

    def _messages(self, out: str) -> list[object]:
        found = list(objects(out))
        return found if self._name == "buf" else camel(found)

    def _error(self, err: str) -> tuple[str, list[object]]:
        if self._name == "buf":
            (error,) = objects(err)
            return error["code"], [decoded(each) for each in error.get("details", ())]
        code = re.search(r"Code: (\w+)", err)
        assert code is not None, err
        details = [camel(next(objects(text))) for text in re.findall(r"^\s+\d+\)\s+(\{.*)$", err, re.MULTILINE)]
        return re.sub(r"(?<=.)([A-Z])", r"_\1", code[1]).lower(), details


def is_read(recipe: Recipe) -> bool:
    """What may be asked for again until it is there."""
    return f'"method": "{recipe.method.partition("/")[2]}"' in service_config()


async def in_a_moment(tool: Tool, recipe: Recipe) -> None:
    """As it is shown, at once or soon where it only reads."""
    loop = asyncio.get_running_loop()
    ends, last = loop.time() + ANSWER_TIMEOUT_S, "no answer"
    while True:
        try:
            async with asyncio.timeout_at(ends):
                return await tool.run(recipe)
        except AssertionError as other:
            if not is_read(recipe) or recipe.error is not None:
                raise
            last = str(other)
        except TimeoutError:
            raise AssertionError(f"{recipe.method}: {last}") from None
        await asyncio.sleep(PAUSE_S)


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_every_recipe_answers_as_shown(tmp_path: Path) -> None:
    async with system(tmp_path):
        variables = await environment(tmp_path)
        bound: Bound = {}
        names = ["buf"] + (["grpcurl"] if shutil.which("grpcurl") else [])
        tools = [Tool(name, tmp_path, variables, bound) for name in names]
        for recipe in recipes():
            for tool in tools:
                await in_a_moment(tool, recipe)
