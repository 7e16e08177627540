"""Holds the checked-in generated code, the API's style and its compatibility to what stands in proto/.

While there is no .proto file, there must be no generated code and no baseline either.
"""

import hashlib
from pathlib import Path

import pytest

from tools import proto

CHANGELOG = proto.ROOT / "CHANGELOG.md"


def test_checked_in_code_is_what_protoc_writes(tmp_path: Path) -> None:
    proto.generate(tmp_path)
    assert proto.generated_files(tmp_path) == proto.generated_files(proto.ROOT), "run `make proto`"
    stale = [
        str(path)
        for path in proto.generated_files(tmp_path)
        if (tmp_path / path).read_bytes() != (proto.ROOT / path).read_bytes()
    ]
    assert not stale, f"run `make proto`: {stale} differ from what proto/ says"


def test_api_passes_buf_lint_and_breaks_nothing() -> None:
    proto.check()  # exits with buf's status when it objects


def test_every_source_has_its_modules_and_no_other_is_left() -> None:
    modules = {path.name.split("_pb2")[0] for path in proto.generated_files(proto.ROOT)}
    assert modules == {path.stem for path in proto.sources()}


def test_baseline_changes_only_with_a_changelog_line() -> None:
    if not proto.BASELINE.exists():
        return  # nothing is promised yet
    digest = hashlib.sha256(proto.BASELINE.read_bytes()).hexdigest()
    assert digest[:12] in CHANGELOG.read_text(), f"say in CHANGELOG.md what changed, naming baseline {digest[:12]}"


def test_check_refuses_what_buf_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "relayfile" / "v1"
    folder.mkdir(parents=True)
    (folder / "probe.proto").write_text('syntax = "proto3";\n\npackage relayfile.v1;\n\nmessage bad_name {}\n')
    monkeypatch.setattr(proto, "PROTO_ROOT", tmp_path)
    monkeypatch.setattr(proto, "BASELINE", tmp_path / "baseline.binpb")
    with pytest.raises(SystemExit, match="100"):
        proto.check()
