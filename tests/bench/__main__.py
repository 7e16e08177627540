"""`python -m tests.bench [P1a P2 ...] [--quick] [--folder DIR]`: one JSON line for each, and a table after several."""

import argparse
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from tests.bench import (
    machine,
    p1a,
    p1b,
    p2,
    p3,
    p3b,
    p4,
    p5,
    p5b,
    p5c,
    p6,
    p7,
    p8,
    p9,
    p10,
    p12i,
    p12m,
    p12s,
    p13,
    p14,
    p15,
    p16,
    w100,
    wiso,
)
from tests.bench.harness import Bench, bench_folder, measurement_folder
from tests.bench.result import Figure, Result, table

BENCHMARKS: dict[str, Callable[[Bench], Awaitable[Result]]] = {
    "P1a": p1a.run,
    "P1b": p1b.run,
    "P2": p2.run,
    "P3": p3.run,
    "P3b": p3b.run,
    "P4": p4.run,
    "P5": p5.run,
    "P5b": p5b.run,
    "P5c": p5c.run,
    "P6": p6.run,
    "P7": p7.run,
    "P8": p8.run,
    "P9": p9.run,
    "P10": p10.run,
    "P12i": p12i.run,
    "P12m": p12m.run,
    "P12s": p12s.run,
    "P13": p13.run,
    "P14": p14.run,
    "P15": p15.run,
    "P16": p16.run,
    "W100": w100.run,
    "WISO": wiso.run,
}


FOLDER = Path(__file__).resolve().parents[2] / "build" / "bench"


async def measure(name: str, *, quick: bool, folder: Path, million: Path | None = None) -> Result:
    """Run one benchmark on a machine that is described in the same minute. A failure is a result: not met."""
    started = time.monotonic()
    measurement_folder(folder)
    bench = Bench(quick, folder, {"machine": machine.describe(folder)}, million)
    try:
        result = await BENCHMARKS[name](bench)
    except Exception as error:
        traceback.print_exc()
        return Result(name, [Figure("completed", 0, "yes=1", 1)], quick, {**bench.detail, "error": repr(error)})
    detail = {**result.detail, "took_s": round(time.monotonic() - started, 1)}
    honest = Figure("durable disk", float(bool(bench.detail["machine"]["durable_disk"])), "yes=1", 1)  # type: ignore[index]
    return Result(result.id, [*result.figures, honest], quick, detail, result.scale_only)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*BENCHMARKS, []], metavar="P", help="all of them when none is named"
    )
    parser.add_argument("--quick", action="store_true", help="scaled down, at most 45 s each")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where data go: on the disk to be measured")
    parser.add_argument(
        "--million", type=Path, help="keep the store of 1,000,000 files here, for other runs; P4 adds files to it"
    )
    options = parser.parse_args()
    results = []
    with bench_folder(options.folder) as folder:
        for name in options.names or BENCHMARKS:
            print(f"{name}: {'quick, scaled down' if options.quick else 'full'}", file=sys.stderr, flush=True)
            results.append(
                uvloop.run(measure(name, quick=options.quick, folder=folder / name, million=options.million))
            )
            print(results[-1].line(), flush=True)
    if len(results) > 1:
        print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
