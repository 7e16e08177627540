"""Turns proto/ into the checked-in package relayfile/v1, and checks the API with buf.

Owns how protoc and buf are called: offline, with the pinned tools of .venv and the .proto files that packages ship
(google/protobuf in grpcio-tools, google/rpc in googleapis-common-protos). Decides nothing about the API itself.

    python tools/proto.py generate [DIR]     write the generated code below DIR (default: the repository)
    python tools/proto.py check              buf lint, and buf breaking against proto/baseline.binpb
    python tools/proto.py baseline           write proto/baseline.binpb from the current API
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO_ROOT = ROOT / "proto"
BASELINE = PROTO_ROOT / "baseline.binpb"
GENERATED = Path("relayfile/v1")
TOOLS = Path(sys.executable).parent


def sources() -> list[Path]:
    """The project's .proto files, relative to proto/, sorted; empty while there is no API yet."""
    return sorted(path.relative_to(PROTO_ROOT) for path in PROTO_ROOT.rglob("*.proto"))


def generated_files(root: Path) -> list[Path]:
    """What protoc wrote below `root`, relative to it, sorted."""
    return sorted(path.relative_to(root) for path in (root / GENERATED).glob("*_pb2*.py*"))


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} is not installed; run `make setup`")
    return Path(next(iter(spec.submodule_search_locations)))


def _run(*command: str | Path) -> None:
    # protoc finds its plugins, and this script finds buf, beside the interpreter that runs it.
    search_path = os.pathsep.join([str(TOOLS), os.environ.get("PATH", "")])
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": search_path}, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def _protoc(*options: str) -> None:
    includes = [PROTO_ROOT, _package_folder("grpc_tools") / "_proto", _package_folder("google.rpc").parent.parent]
    _run(
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        *(f"--proto_path={include}" for include in includes),
        *options,
        *map(str, sources()),
    )


def generate(out: Path) -> None:
    """Write modules, gRPC modules and their type stubs to `out`/relayfile/v1; what is no longer generated goes."""
    (out / GENERATED).mkdir(parents=True, exist_ok=True)
    for stale in generated_files(out):
        (out / stale).unlink()
    if sources():
        _protoc(
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
        )


def write_image(path: Path, *, with_comments: bool) -> None:
    """Write the API with everything it imports as one descriptor set, which buf reads without any registry."""
    comments = ["--include_source_info"] if with_comments else []
    _protoc("--include_imports", *comments, f"--descriptor_set_out={path}")


def check() -> None:
    """`buf lint`, and `buf breaking` when there is a baseline; exits with buf's status when it objects."""
    if not sources():
        print("proto: no .proto files yet, nothing to check")
        return
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.binpb")
        write_image(image, with_comments=True)
        _run("buf", "lint", image, "--path", GENERATED)
        if BASELINE.exists():
            _run("buf", "breaking", image, "--against", BASELINE, "--path", GENERATED)
        else:
            print("proto: no baseline yet, nothing to compare with")


def main(arguments: list[str]) -> None:
    if shutil.which("buf", path=str(TOOLS)) is None:
        raise SystemExit("buf is not installed; run `make setup`")
    match arguments:
        case ["generate"]:
            generate(ROOT)
        case ["generate", out]:
            generate(Path(out).resolve())
        case ["check"]:
            check()
        case ["baseline"]:
            write_image(BASELINE, with_comments=False)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
