"""What a benchmark prints: figures with their bars, one JSON line, a table at the end."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Relation = Literal["at least", "at most"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value and what it must reach. `bar` None: reported only."""

    name: str
    value: float | None
    unit: str
    bar: float | None = None
    relation: Relation = "at least"
    goal: float | None = None

    @property
    def met(self) -> bool | None:
        """None: nothing to meet, or not measured."""
        if self.bar is None or self.value is None:
            return None
        return self.value >= self.bar if self.relation == "at least" else self.value <= self.bar

    def as_json(self) -> dict[str, object]:
        return {
            "value": _rounded(self.value),
            "unit": self.unit,
            "bar": self.bar,
            "relation": self.relation,
            "goal": self.goal,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """One benchmark's outcome; its first figure is the value."""

    id: str
    figures: Sequence[Figure]
    quick: bool
    detail: Mapping[str, object] = field(default_factory=dict)
    scale_only: bool = False
    """The bar is about scale, and this run was scaled down: nothing can be said about it."""

    @property
    def met(self) -> bool | None:
        if self.scale_only:
            return None
        with_bars = [figure.met for figure in self.figures if figure.bar is not None]
        if False in with_bars:
            return False
        return None if None in with_bars else True

    def line(self) -> str:
        first, *others = self.figures
        return json.dumps(
            {
                "id": self.id,
                "value": _rounded(first.value),
                "unit": first.unit,
                "bar": first.bar,
                "met": self.met,
                "quick": self.quick,
                "detail": {**{figure.name: figure.as_json() for figure in others}, **self.detail},
            }
        )


def table(results: Sequence[Result]) -> str:
    """Every figure that has a bar: figure, bar, met or not."""
    rows = [("bench", "figure", "value", "bar", "met")]
    for result in results:
        for figure in result.figures:
            if figure.bar is None:
                continue
            met = None if result.scale_only else figure.met
            value = "not measured" if figure.value is None else f"{figure.value:,.4g} {figure.unit}"
            rows.append((result.id, figure.name, value, f"{figure.relation} {figure.bar:,.6g}", _word(met)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _word(met: bool | None) -> str:
    return {True: "met", False: "NOT met", None: "-"}[met]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
