import time

import pytest

from relayfile.errors import InvalidArgument
from relayfile.model import EventType, Origin
from relayfile.store.plan.rows import EventRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.event_filter import check_filter, compile_filter, compile_glob
from relayfile.v1 import event_pb2, types_pb2


def event(
    path: str = "/github/issues/1.json",
    kind: EventType = EventType.FILE_CREATED,
    provider: str = "github",
    origin: Origin = Origin.PROVIDER,
) -> EventRow:
    return EventRow(1, kind, path, "", "", b"", 0, origin, provider, "", "", 0)


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("/a/b.json", ["/a/b.json"], ["/a/b_json", "/a", "/a/b.json/c"]),
        ("a/b.json", ["/a/b.json"], ["a/b.json"]),
        ("/a/*", ["/a/b", "/a/b.json"], ["/a", "/a/b/c", "/ab"]),
        ("/a/**", ["/a", "/a/b", "/a/b/c"], ["/ab", "/b/a"]),
        ("/**", ["/a", "/a/b/c"], []),
        ("**/*.json", ["/x.json", "/a/x.json", "/a/b/x.json"], ["/x.jsonl", "/x.json/y"]),
        ("/a/**/z", ["/a/z", "/a/b/z", "/a/b/c/z"], ["/a", "/z", "/a/z/b"]),
        ("/a*c/*", ["/abc/x", "/ac/x"], ["/ab/x", "/a/c/x"]),
        ("/**/issues/**", ["/github/issues/1", "/issues", "/x/y/issues/1/2"], ["/issue/1"]),
        ("/a[1].json", ["/a[1].json"], ["/a1.json"]),
        ("/a?", ["/a?"], ["/ab"]),
        ("/a.c", ["/a.c"], ["/abc"]),
        ("/*", ["/a"], ["/a/b"]),
    ],
)
def test_globs(glob: str, matching: list[str], others: list[str]) -> None:
    matches = compile_glob(glob)
    assert [path for path in matching if not matches(path)] == []
    assert [path for path in others if matches(path)] == []


def test_no_glob_makes_a_path_expensive() -> None:
    matches = compile_glob("/" + "/".join(["**", "*a*a*a*a*b"] * 40))
    started = time.process_time()
    assert not matches("/" + "/".join(["a" * 100] * 40))
    assert time.process_time() - started < 1.0


def test_several_values_of_one_filter_mean_any_and_several_filters_mean_all() -> None:
    passes = compile_filter(
        event_pb2.EventFilter(
            path_globs=["/github/**", "/linear/**"],
            providers=["github"],
            types=[event_pb2.EVENT_TYPE_FILE_CREATED, event_pb2.EVENT_TYPE_FILE_DELETED],
            origins=[types_pb2.ORIGIN_PROVIDER],
        )
    )
    assert passes is not None
    assert passes(event())
    assert passes(event(kind=EventType.FILE_DELETED, path="/linear/1"))
    assert not passes(event(kind=EventType.FILE_UPDATED))
    assert not passes(event(provider="linear"))
    assert not passes(event(path="/slack/1"))
    assert not passes(event(origin=Origin.AGENT))


def test_no_filter_is_no_predicate() -> None:
    assert compile_filter(event_pb2.EventFilter()) is None


def test_what_cannot_be_compiled_is_named_by_its_field() -> None:
    asked = event_pb2.EventFilter(path_globs=["", "x" * 1025], providers=["p"] * 65)
    asked.types.extend([0, 99])  # type: ignore[list-item]  # as a client of a later version could
    asked.origins.append(9)  # type: ignore[arg-type]  # as above
    checks = Checks()
    check_filter(checks, asked)
    with pytest.raises(InvalidArgument) as refused:
        checks.done()
    assert [violation.field for violation in refused.value.violations] == [
        "filter.path_globs[0]",
        "filter.path_globs[1]",
        "filter.providers",
        "filter.types[0]",
        "filter.types[1]",
        "filter.origins[0]",
    ]
