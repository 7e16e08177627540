"""A Dockerfile as its instructions, and its build steps run in a directory instead of a container.

Understands what ours uses: stages, ARG and ENV without spaces in their values, COPY of files and directories, RUN in
shell form, WORKDIR. Absolute paths of the build are places below the directory. Refuses anything else.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a Dockerfile, continued lines joined."""

    word: str
    rest: str


@dataclass(frozen=True, slots=True)
class Stage:
    """From one FROM to the next."""

    name: str
    instructions: Sequence[Instruction]

    def of(self, word: str) -> list[str]:
        """What its instructions of one kind say."""
        return [each.rest for each in self.instructions if each.word == word]


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile, in order."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found: list[Stage] = []
    current: list[Instruction] = []
    for line in re.sub(r"\\\n\s*", "", lines).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            current = []
            found.append(Stage(rest.partition(" AS ")[2], current))
        elif found:
            current.append(Instruction(word, rest.strip()))
    return found


class BuildDirectory:
    """Runs a stage's instructions below `root`; `context` is what COPY copies from."""

    def __init__(self, root: Path, context: Path, python: str = sys.executable) -> None:
        self._root = root
        self._context = context
        self._environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        # Where packages come from is the machine's business, as in `docker build --build-arg`.
        self._environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self._workdir = root
        self._python = python

    def path(self, inside: str) -> Path:
        """Where a path of the image lies."""
        return self._root / inside.lstrip("/") if inside.startswith("/") else self._workdir / inside

    def run(self, stage: Stage) -> None:
        """Every instruction, in order. `CalledProcessError` of one that fails."""
        for each in stage.instructions:
            match each.word:
                case "ENV":
                    self._environment |= self._assignments(each.rest)
                case "WORKDIR":
                    self._workdir = self._root / each.rest.lstrip("/")
                    self._workdir.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    *sources, target = each.rest.split()
                    self._copy(sources, target)
                case "RUN":
                    self._shell(each.rest)
                case _:
                    raise AssertionError(f"not understood: {each}")

    def _assignments(self, text: str) -> Mapping[str, str]:
        return dict(pair.partition("=")[::2] for pair in text.split())

    def _copy(self, sources: Sequence[str], target: str) -> None:
        for source in sources:
            place = self.path(target)
            if (self._context / source).is_dir():
                shutil.copytree(self._context / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place = place / Path(source).name if target.endswith("/") else place
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self._context / source, place)

    def _shell(self, command: str) -> None:
        placed = re.sub(r"(?<![\w./-])/(?=[a-z])", f"{self._root}/", command)
        placed = re.sub(r"(?<![\w./-])python(?= )", self._python, placed)
        subprocess.run(
            ["/bin/sh", "-euc", placed], cwd=self._workdir, env=self._environment, check=True, stdout=subprocess.DEVNULL
        )
