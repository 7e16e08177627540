"""`python -m tests.fuzz TARGET [-max_total_time=60] [CORPUS_DIRECTORY]`: libFuzzer by way of atheris."""

import sys

import atheris

with atheris.instrument_imports(
    include=["relayfile.ingest", "relayfile.wire", "relayfile.paths", "relayfile.pinned_json"]
):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run one target until libFuzzer's options end it, or something is found (exit code 77)."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {'|'.join(TARGETS)} [libFuzzer options]")
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
