"""Rules that hold for the whole repository and that no linter knows: one owner per concern, names, sizes, tidiness.

Each rule names the place where the thing belongs. An exception is an entry in a list here, with its reason.
"""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from relayfile.settings.environment import GROUPS, definitions
from relayfile.telemetry import (
    IngestInstruments,
    RpcInstruments,
    ScrubInstruments,
    StoreInstruments,
    SyncdInstruments,
    WritebackInstruments,
)

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 450
BANNED_NAMES = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}

# file -> why a task may be made there that no TaskGroup owns
TASKS_WITHOUT_GROUP: dict[str, str] = {
    "relayfile/ingest/sending/node_stream.py": "a group whose tasks fail while it is cancelled forgets that it was",
    "relayfile/ingest/spool/adopt.py": "the pipeline is at work for as long as it is drained, and is waited for",
    "relayfile/store/servicers/mark_totals.py": "a watch reads on while its totals are gathered, and ends them",
}

CLOCK_READS = {
    *(f"time.{name}" for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")),
    *(f"datetime.{name}" for name in ("now", "utcnow", "today")),
    *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
    *(f"{module}.today" for module in ("date", "datetime.date")),
}
ENVIRONMENT_READS = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv"}
TASK_MAKERS = {"asyncio.create_task", "asyncio.ensure_future"}


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows or would add, relative to the root; the folder's own files where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [Path(name) for name in names if name and (ROOT / name).is_file()]


MODULES = [path for path in tracked("relayfile/*.py") if "_pb2" not in path.name]


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain that starts at a name; empty for any other expression."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            left = dotted(value)
            return f"{left}.{attr}" if left else ""
        case _:
            return ""


def names_used(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything read or called, and of everything imported by `from a import b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            yield node.lineno, dotted(node)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def offences(is_offence: Callable[[str], bool], is_owner: Callable[[str], bool]) -> list[str]:
    """`file:line: name` of each use of a name outside the files that own it."""
    found = []
    for path in MODULES:
        if is_owner(path.as_posix()):
            continue
        tree = ast.parse((ROOT / path).read_text())
        found += [f"{path}:{line}: {name}" for line, name in names_used(tree) if is_offence(name)]
    return found


def test_only_settings_reads_the_environment() -> None:
    assert not offences(ENVIRONMENT_READS.__contains__, "relayfile/settings/environment.py".__eq__)


def test_only_clock_reads_the_time() -> None:
    assert not offences(CLOCK_READS.__contains__, "relayfile/clock.py".__eq__)


def test_only_cli_prints() -> None:
    assert not offences({"print", "builtins.print"}.__contains__, lambda path: path.startswith("relayfile/cli/"))


def test_only_status_ends_a_call_with_a_status() -> None:
    def aborts(name: str) -> bool:
        return re.fullmatch(r"(.*\.)?(grpc_)?context\.(abort|abort_with_status|set_code|set_details)", name) is not None

    assert not offences(aborts, "relayfile/status.py".__eq__)


def test_every_task_has_an_owner() -> None:
    assert not offences(TASK_MAKERS.__contains__, TASKS_WITHOUT_GROUP.__contains__)
    assert not TASKS_WITHOUT_GROUP.keys() - {path.as_posix() for path in MODULES}, (
        "remove entries of files that are gone"
    )


def test_the_scanner_sees_what_it_must() -> None:
    tree = ast.parse("import time\nfrom os import environ\nx = self.context.abort(time.time())\n")
    assert {name for _, name in names_used(tree)} >= {"time.time", "os.environ", "self.context.abort"}


@pytest.mark.parametrize("path", MODULES, ids=Path.as_posix)
def test_a_file_is_one_idea(path: Path) -> None:
    lines = len((ROOT / path).read_text().splitlines())
    assert lines <= FILE_LINES_MAX, f"{path} has {lines} lines: which part of it is a thing of its own?"


def test_every_exemption_has_its_reason() -> None:
    bare = re.compile(r"(?:type: ignore|noqa)(?:\[[^]]*\]|: [A-Z]+\d+)?\s*$")
    lines = [(path, number, line) for path in MODULES for number, line in enumerate(read_lines(path), 1)]
    assert not [f"{path}:{number}" for path, number, line in lines if bare.search(line)]


def read_lines(path: Path) -> list[str]:
    return (ROOT / path).read_text().splitlines()


def test_names_come_from_the_problem() -> None:
    parts = {part.removesuffix(".py") for path in MODULES for part in path.parts}
    assert not {part for part in parts if BANNED_NAMES & set(part.split("_"))}


def attributes_read(is_place: Callable[[str], bool]) -> set[str]:
    """Names that stand behind a dot in the files of a place."""
    trees = [ast.parse((ROOT / path).read_text()) for path in MODULES if is_place(path.as_posix())]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_every_setting_acts() -> None:
    read = attributes_read(lambda path: not path.startswith("relayfile/settings/"))
    read.add("advertise_address")  # is read by `StoreSettings.public_address`
    offered = {attribute for group in GROUPS.values() for attribute, _, _ in definitions(group)}
    assert not offered - read, "a setting that nothing reads is a promise that nobody keeps"


def test_every_instrument_is_set() -> None:
    used = attributes_read(lambda path: not path.startswith("relayfile/telemetry/metrics"))
    groups = (
        RpcInstruments,
        IngestInstruments,
        StoreInstruments,
        SyncdInstruments,
        WritebackInstruments,
        ScrubInstruments,
    )
    assert not {field.name for group in groups for field in fields(group)} - used


def test_no_traces_of_one_machine() -> None:
    # Put together here, so that this file does not name what it forbids.
    words = [
        re.escape("/work" + "/") + r"(main|notes|shared|wt-|\.)",
        re.escape("/opt" + "/pypi"),
        re.escape("shared" + "/design"),
        *(
            re.escape(".".join(host))
            for host in (("pypi", "org"), ("files", "pythonhosted"), ("registry", "npmjs"), ("deb", "debian"))
        ),
    ]
    trace = re.compile("|".join(words).encode())
    assert not [str(path) for path in tracked() if trace.search((ROOT / path).read_bytes())]


def test_links_between_pages_lead_somewhere() -> None:
    pages = [path for path in tracked("*.md") if path.name != "0000-template.md"]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text())]
    local = [(page, link) for page, link in links if "://" not in link]
    assert not [f"{page}: {link}" for page, link in local if not (ROOT / page.parent / link).exists()]


def test_every_rule_that_a_comment_names_is_written_down() -> None:
    written = set(re.findall(r"^\* \*\*([DI]\d+)\b", (ROOT / "docs" / "rules.md").read_text(), re.MULTILINE))
    files = [*MODULES, *tracked("relayfile/*.sql", "proto/*.proto", "docs/*.md")]
    named = {rule for path in files for rule in re.findall(r"\b[DI]\d{1,2}\b", (ROOT / path).read_text())}
    assert not named - written


def test_every_decision_is_listed() -> None:
    records = {path.name for path in (ROOT / "docs" / "adr").glob("0*.md")}
    listed = set(re.findall(r"\((\d{4}-[\w-]+\.md)\)", (ROOT / "docs" / "adr" / "README.md").read_text()))
    assert records == listed
