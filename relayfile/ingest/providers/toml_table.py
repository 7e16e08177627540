"""One TOML table of a provider file: typed reads, and refusals that name file, line, key and reason.

Owns finding the line of a key (the parser of the standard library does not tell) and refusing what nobody read, so that
a typing error is never a silent default. Refuses to know what keys mean.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NoReturn, TypeVar

from relayfile.errors import StartRefused

T = TypeVar("T")

_HEADING: Final = re.compile(r"\s*(?P<open>\[\[?)\s*(?P<name>[A-Za-z0-9_.\"' -]+?)\s*\]")
_KEY: Final = re.compile(r"\s*(?P<key>[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')\s*=")


class TomlLines:
    """Where the keys of a text stand: of each the line, counted from 1."""

    def __init__(self, text: str) -> None:
        self._lines: dict[str, int] = {}
        counts: dict[str, int] = {}
        place = ""
        for number, line in enumerate(text.splitlines(), 1):
            if (heading := _HEADING.match(line)) is not None:
                first, *rest = (part.strip(" \"'") for part in heading["name"].split("."))
                if heading["open"] == "[[" and not rest:
                    counts[first] = counts.get(first, -1) + 1
                name = ".".join([f"{first}[{counts[first]}]" if first in counts else first, *rest])
                place = f"{name}."
                self._lines.setdefault(name, number)
            elif (key := _KEY.match(line)) is not None:
                self._lines.setdefault(place + key["key"].strip("\"'"), number)

    def of(self, place: str) -> int:
        """Of the key at ``place`` (`rules[3].content.title`), or of the table around it; 0: of neither."""
        while place:
            if place in self._lines:
                return self._lines[place]
            place = place.rpartition(".")[0]
        return 0


class TomlTable:
    """Each method refuses a value of another type, as `StartRefused`."""

    def __init__(self, raw: Mapping[str, object], file: str, lines: TomlLines, place: str = "") -> None:
        self._raw = raw
        self._file = file
        self._lines = lines
        self._place = place
        self._read: set[str] = set()

    def refuse(self, key: str, why: str) -> NoReturn:
        """Refuse the file for what it says under ``key``."""
        line = self._lines.of(self._place + key)
        where = f"{self._file}:{line}" if line else self._file
        raise StartRefused(why=f"provider file {where}: {self._place}{key} {why}")

    def has(self, key: str) -> bool:
        return key in self._raw

    def is_table(self, key: str) -> bool:
        return isinstance(self._raw.get(key), dict)

    def names(self) -> Iterable[str]:
        """Of the members."""
        return iter(self._raw)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        return value if isinstance(value, str) else self.refuse(key, "must be a text")

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            self.refuse(key, "must be a list of texts")
        return tuple(value)

    def number(self, key: str, default: float) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(key, "must be a number")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self._get(key, False)
        return value if isinstance(value, bool) else self.refuse(key, "must be true or false")

    def one_of(self, key: str, choices: Mapping[str, T], default: T | None = None) -> T:
        if default is not None and not self.has(key):
            return default
        text = self.text(key)
        return choices[text] if text in choices else self.refuse(key, f"must be one of {', '.join(choices)}")

    def table(self, key: str) -> "TomlTable":
        value = self._get(key, {})
        if not isinstance(value, dict):
            self.refuse(key, "must be a table")
        return TomlTable(value, self._file, self._lines, f"{self._place}{key}.")

    def tables(self, key: str) -> "list[TomlTable]":
        """Those of a list (`[[key]]`)."""
        value = self._get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.refuse(key, "must be a list of tables")
        places = (f"{self._place}{key}[{number}]." for number in range(len(value)))
        return [TomlTable(each, self._file, self._lines, place) for each, place in zip(value, places, strict=True)]

    def one_or_more(self, key: str) -> "list[TomlTable]":
        """`[key]` or several `[[key]]`."""
        return [self.table(key)] if self.is_table(key) else self.tables(key)

    def compiled(self, key: str, compiler: Callable[[str], T], text: str | None = None) -> T:
        source = self.text(key) if text is None else text
        try:
            return compiler(source)
        except ValueError as error:
            self.refuse(key, str(error))

    def finish(self) -> None:
        unknown = sorted(self._raw.keys() - self._read)
        if unknown:
            self.refuse(unknown[0], "is not a key that can stand here")

    def _get(self, key: str, default: object) -> object:
        self._read.add(key)
        if key in self._raw:
            return self._raw[key]
        return default if default is not None else self.refuse(key, "is missing")
