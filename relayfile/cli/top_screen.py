"""How `relayfile top` looks: figures and the size of a terminal in, styled lines out. Pure.

What is wrong comes first in each list, so that it is seen where not all of a list has room.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from relayfile.cli.top_figures import (
    Figures,
    IntakeFigures,
    MirrorFigures,
    NodeFigures,
    PartFigures,
    ProviderFigures,
)

HEADING: Final = "bold"
BAD: Final = "red"
WORRYING: Final = "yellow"
_OLD_S: Final = 30.0
_NAME_MIN: Final = 8


class Line(NamedTuple):
    """A line and its style, in the words of rich; empty: plain."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what is below it, the most important first."""

    heading: Line
    rows: tuple[Line, ...]


def screen(figures: Figures, width: int = 0, height: int = 0) -> list[Line]:
    """The figures in at most ``height`` lines of at most ``width`` characters; 0: without a limit."""
    head = [*_head(figures), _answers(figures.parts)]
    sections = [
        each
        for each in (make(figures, width) for make in (_nodes, _ingest, _providers, _mirrors, _busiest))
        if each.rows
    ]
    room = sum(len(each.rows) for each in sections)
    if height:
        room = max(0, height - len(head) - len(sections))
    lines = [*head, *(line for section in _fitted(sections, room) for line in (section.heading, *section.rows))]
    if height:
        lines = lines[:height]
    return [Line(_cut(_shown(line.text), width), line.style) for line in lines]


def _fitted(sections: Sequence[Section], room: int) -> list[Section]:
    """Each with as many rows as there is room for, shared in turns; what is left out is counted in the last one."""
    shares = [0] * len(sections)
    for _ in range(min(room, sum(len(each.rows) for each in sections))):
        open_ones = [number for number, each in enumerate(sections) if shares[number] < len(each.rows)]
        shares[min(open_ones, key=lambda number: (shares[number], number))] += 1
    fitted = []
    for section, share in zip(sections, shares, strict=True):
        rows = section.rows[:share]
        if 0 < share < len(section.rows):
            rows = (*rows[:-1], Line(f"... {len(section.rows) - share + 1} more"))
        fitted.append(Section(section.heading, rows))
    return fitted


def _head(figures: Figures) -> list[Line]:
    store = f"{_count(len(figures.nodes), 'node')}, {_count(figures.shard_count, 'shard')}"
    around = f"{len(figures.ingest)} ingest, {_count(len(figures.mirrors), 'mirror')}"
    title = f"relayfile top  {figures.time:%H:%M:%SZ}  {store}, {around}"
    intake = figures.intake
    flow = "intake not known" if intake is None else _flow(intake)
    letters = _count(figures.dead_letters, "dead letter")
    is_behind = intake is not None and (intake.oldest_pending_s > _OLD_S or bool(intake.refused_per_s))
    style = WORRYING if figures.dead_letters or is_behind else ""
    operations = sum(node.operations for node in figures.nodes)
    return [Line(title, HEADING), Line(f"{flow}; {letters}, {operations} write-backs open", style)]


def _flow(intake: IntakeFigures) -> str:
    waiting = f"{intake.pending} pending"
    if intake.pending:
        waiting += f" ({duration(intake.oldest_pending_s)})"
    flow = f"{rate(intake.accepted_per_s)}/s in, {rate(intake.decided_per_s)}/s decided"
    refused = f", {rate(intake.refused_per_s)}/s refused" if intake.refused_per_s else ""
    return f"{flow}{refused}, {waiting}"


def _answers(parts: Sequence[PartFigures]) -> Line:
    """How old what is shown is, by part: those that do not answer first, the others together."""
    away = [each for each in parts if each.failure]
    asked = [each for each in parts if not each.failure and each.age_s is None]
    ages = [each.age_s for each in parts if not each.failure and each.age_s is not None]
    told = [
        f"{each.name}: no answer{f' for {duration(each.age_s)}' if each.age_s is not None else ''} ({each.failure})"
        for each in away
    ]
    told += [f"{each.name}: asking" for each in asked]
    if ages:
        told.append(f"{len(ages)} of {len(parts)} parts answered within {age(max(1.0, *ages))}")
    return Line("; ".join(told) or "nobody answers", BAD if away else "")


def _nodes(figures: Figures, width: int) -> Section:
    headings = ("NODE", "AGE", "STATE", "SHARDS", "CHANGES/S", "CALLS/S", "QUEUED", "P99", "LETTERS", "CPU")
    ordered = sorted(figures.nodes, key=lambda node: (node.state == "serving", node.node_index))
    section = _section(headings, [_node_row(node) for node in ordered], [_node_style(node) for node in ordered], width)
    unserved = [each for each in figures.shards if each.state != "serving"]
    if not unserved:
        return section
    text = ", ".join(
        f"{each.shard_count} {each.state}" + (f" at node {each.node_index}" if each.node_index >= 0 else "")
        for each in unserved
    )
    return Section(section.heading, (Line(f"shards not served: {text}", BAD), *section.rows))


def _node_row(node: NodeFigures) -> tuple[str, ...]:
    return (
        str(node.node_index),
        age(node.age_s),
        node.state,
        str(node.shard_count),
        rate(node.changes_per_s),
        rate(node.calls_per_s),
        str(node.queued_changes),
        duration(node.receive_to_commit_p99_s) if node.receive_to_commit_p99_s else "-",
        str(node.dead_letters),
        "-" if node.cpu_cores is None else f"{node.cpu_cores:.0%}",
    )


def _node_style(node: NodeFigures) -> str:
    if node.state == "no answer":
        return BAD
    is_crowded = node.queued_bytes * 2 > node.queued_bytes_max > 0
    return WORRYING if node.dead_letters or is_crowded or node.state != "serving" else ""


def _ingest(figures: Figures, width: int) -> Section:
    headings = ("INGEST", "AGE", "PENDING", "HELD", "SPOOL")
    rows: list[tuple[str, ...]] = []
    for each in figures.ingest:
        held, spool = "", ""
        if each.is_asked and figures.intake is not None:
            held = str(figures.intake.held_objects)
            spool = f"{size(figures.intake.spool_bytes)} of {size(figures.intake.spool_bytes_max)}"
        rows.append((each.ingest_id, age(each.age_s), str(each.pending), held, spool))
    return _section(headings, rows, [WORRYING if each.age_s > _OLD_S else "" for each in figures.ingest], width)


def _providers(figures: Figures, width: int) -> Section:
    headings = ("PROVIDER", "HEALTH", "IN/S", "PENDING", "OLDEST", "REFUSED", "DEAD", "WHY")
    order = {"error": 0, "lagging": 1, "paused": 2}
    ordered = sorted(figures.providers, key=lambda each: (order.get(each.health, 3), -(each.accepted_per_s or 0.0)))
    rows = [
        (
            each.provider,
            each.health,
            rate(each.accepted_per_s),
            str(each.pending),
            duration(each.oldest_pending_s) if each.pending else "-",
            str(each.refused),
            str(each.dead_lettered),
            _reasons(each),
        )
        for each in ordered
    ]
    styles = [{"error": BAD, "lagging": WORRYING, "paused": WORRYING}.get(each.health, "") for each in ordered]
    return _section(headings, rows, styles, width)


def _reasons(provider: ProviderFigures) -> str:
    by_count = sorted(provider.failure_reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason}" for reason, count in by_count) or "-"


def _mirrors(figures: Figures, width: int) -> Section:
    headings = ("MIRROR", "STATE", "REVISION", "FRESH", "FILES", "EDITS", "PROBLEMS", "CONFLICTS")
    ordered = sorted(
        figures.mirrors,
        key=lambda each: (
            not each.is_stuck,
            -each.problems - each.conflicts,
            each.directory,
        ),
    )
    rows = [
        (
            each.directory,
            each.state,
            f"{each.revision}/{each.remote_revision}",
            age(each.fresh_s),
            str(each.files) if each.files == each.files_total else f"{each.files}/{each.files_total}",
            str(each.unsent_edits),
            str(each.problems),
            str(each.conflicts),
        )
        for each in ordered
    ]
    return _section(headings, rows, [_mirror_style(each) for each in ordered], width)


def _mirror_style(mirror: MirrorFigures) -> str:
    if mirror.is_stuck:
        return BAD
    return WORRYING if mirror.problems or mirror.conflicts or mirror.state == "disconnected" else ""


def _busiest(figures: Figures, width: int) -> Section:
    headings = ("BUSIEST", "CHANGES/S", "BYTES/S", "QUEUED", "STREAMS")
    rows = [
        (
            each.workspace_id,
            rate(each.changes_per_s),
            size(each.bytes_per_s),
            str(each.queued_changes),
            str(each.watchers),
        )
        for each in figures.busiest
    ]
    return _section(headings, rows, [""] * len(rows), width)


def _section(headings: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str], width: int) -> Section:
    """Columns as wide as what is in them: the first and those in words to the left, figures to the right.

    Where ``width`` (0: any) is too narrow, names in the first column lose their beginnings.
    """
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if width:
        over = max(0, sum(widths) + 2 * (len(widths) - 1) - width)
        widths[0] = max(min(widths[0], _NAME_MIN), widths[0] - over)
    left = {"STATE", "HEALTH", "WHY", headings[0]}

    def joined(line: Sequence[str]) -> str:
        cells = zip(headings, (_tail(line[0], widths[0]), *line[1:]), widths, strict=True)
        return "  ".join(
            f"{cell:<{width}}" if heading in left else f"{cell:>{width}}" for heading, cell, width in cells
        ).rstrip()

    body = tuple(Line(joined(row), style) for row, style in zip(rows, styles, strict=True))
    return Section(Line(joined(headings), HEADING), body)


def rate(per_second: float | None) -> str:
    """A rate in at most 5 characters; `-`: not known."""
    if per_second is None:
        return "-"
    if per_second >= 1_000:
        return f"{per_second / 1_000:.1f}k"
    return f"{per_second:.1f}" if 0 < per_second < 10 else f"{per_second:.0f}"


def size(count: float) -> str:
    """Bytes in at most 6 characters."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1_000:
            return f"{count:.0f}{unit}"
        count /= 1_024
    return f"{count:.0f}TiB"


def duration(seconds: float) -> str:
    """A duration in at most 5 characters."""
    if seconds < 1:
        return f"{seconds * 1_000:.0f}ms"
    for limit, part, unit in ((100, 1, "s"), (6_000, 60, "m"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / part:.0f}{unit}"
    return f"{seconds / 86_400:.0f}d"


def age(seconds: float | None) -> str:
    """How long ago, to the second; `-`: never."""
    return "-" if seconds is None else duration(max(1.0, seconds)) if seconds >= 1 else "0s"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _tail(text: str, width: int) -> str:
    """The end of a text, which tells more of a path than its beginning."""
    return text if len(text) <= width else f"...{text[3 - width :]}"


def _cut(text: str, width: int) -> str:
    if not width or len(text) <= width:
        return text
    return f"{text[: width - 3]}..." if width > 3 else text[:width]


def _shown(text: str) -> str:
    """A directory's name may have what moves a cursor or clears a screen."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
