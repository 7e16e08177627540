"""What planning costs per member, with needs and hashing, without an engine. Prints one JSON line per shape.

python -m tests.bench.micro_planner [--profile]
"""

import cProfile
import json
import pstats
import sys
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import process_time

from relayfile.model import NO_SEMANTICS, MemberKind
from relayfile.store.plan.entry import Entry, Fold, Member
from relayfile.store.plan.needs import first_needs, more_needs
from relayfile.store.plan.planner import plan
from relayfile.store.plan.slice import Needs
from tests.fakes.model_store import WORKSPACE, ModelStore

MEMBERS = 500
ROUNDS = 20
CONTENT = b'{"title":"' + b"x" * 1012 + b'"}'


def upsert(number: int, round_number: int, object_number: int) -> Member:
    """An upsert of 1 KiB in an existing directory."""
    return Member(
        MemberKind.UPSERT,
        f"e{round_number}-{number}",
        f"d{round_number}-{number}",
        0,
        f"/github/repos/octo/hello/issues/{object_number}.json",
        f"issue/{object_number}",
        1_000_000 + round_number,
        1_000 + round_number,
        CONTENT + b"%d %d" % (round_number, number),
        "application/json",
        NO_SEMANTICS,
        "c",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )


def new_objects(round_number: int) -> tuple[Fold, ...]:
    """Each fold makes a new object."""
    numbers = range(round_number * MEMBERS, (round_number + 1) * MEMBERS)
    return tuple(Fold("github", f"o:issue/{n}", (upsert(n, round_number, n),)) for n in numbers)


def edits(round_number: int) -> tuple[Fold, ...]:
    """Each fold edits an object that exists."""
    return tuple(Fold("github", f"o:issue/{n}", (upsert(n, round_number, n),)) for n in range(MEMBERS))


def one_fold(round_number: int) -> tuple[Fold, ...]:
    """All members edit one object; contents are elided but for the last."""
    members = [upsert(n, round_number, 0) for n in range(MEMBERS)]
    return (Fold("github", "o:issue/0", (*(m._replace(content=None) for m in members[:-1]), members[-1])),)


def measure(name: str, make: Callable[[int], tuple[Fold, ...]], profile: cProfile.Profile | None) -> None:
    """Microseconds of CPU per member, of needs and plan alone."""
    store = ModelStore()
    store.apply(*new_objects(0))
    spent = []
    for round_number in range(1, ROUNDS + 1):
        entry = Entry(WORKSPACE, make(round_number))
        loaded = store.load(entry)
        loaded = replace(loaded, asked=Needs(), complete=False)
        if profile is not None:
            profile.enable()
        started = process_time()
        first_needs(entry)
        while more_needs(entry, loaded):
            pass
        planned = plan(entry, loaded, now_us=1, limits=store.limits, new_id=str)
        spent.append(process_time() - started)
        if profile is not None:
            profile.disable()
        store.commit(planned)
    best, middle = (round(seconds * 1e6 / MEMBERS, 2) for seconds in (min(spent), median(spent)))
    print(json.dumps({"id": "micro_planner", "shape": name, "value": middle, "best": best, "unit": "us/member"}))


def main() -> None:
    """Run every shape."""
    profile = cProfile.Profile() if "--profile" in sys.argv else None
    measure("new objects", new_objects, profile)
    measure("edits", edits, profile)
    measure("one fold", one_fold, profile)
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
