"""Reading provider files: TOML to a `ProviderDefinition`, with every expression compiled.

Owns the format (docs/providers/README.md) and the refusals: each names the file, the line where it can be told, the key
and the reason. Refuses unknown keys, so that a typing error is never a silent default.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from relayfile.errors import StartRefused
from relayfile.ingest.providers.definition import (
    Action,
    BodyForm,
    DeliveryFacts,
    ProviderDefinition,
    Rule,
)
from relayfile.ingest.providers.expression import Expression, compile_expression
from relayfile.ingest.providers.provider_time import FORMATS
from relayfile.ingest.providers.template import Template, compile_template
from relayfile.ingest.signature import Part, Scheme
from relayfile.paths import check_write_path
from relayfile.wire import is_provider_name

T = TypeVar("T")

_OBJECT_TYPE = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_SIGNED_PART = re.compile(r"\{(body|timestamp|id|method|url)\}")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_RULE_HEADING = re.compile(r"^\s*\[\[\s*rules\s*\]\]", re.MULTILINE)
_ACTIONS: Final[dict[str, Action]] = {each.value: each for each in Action}


def load_provider(path: Path) -> ProviderDefinition:
    """The definition in the file at ``path``. `StartRefused` names file, key and reason."""
    return parse_provider(path.read_text(encoding="utf-8"), path.name)


def parse_provider(text: str, file: str) -> ProviderDefinition:
    """The definition in ``text``; ``file`` names it in refusals."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StartRefused(why=f"provider file {file}: {error}") from None
    top = _Table(raw, file, "")
    name = top.text("name")
    if not is_provider_name(name):
        top.refuse("name", "must have 1 to 64 characters of a-z 0-9 -")
    top.text("title", "")
    top.text("documentation", "")
    version = top.text("version")
    form = top.one_of("body", {each.value: each for each in BodyForm}, BodyForm.EVENT)
    accepts_token = top.flag("accepts_token")
    scheme = _scheme(top.table("signature")) if top.has("signature") else None
    if scheme is None and not accepts_token:
        top.refuse("signature", "is missing: requests could not be authenticated")
    delivery = _delivery(top.table("delivery"))
    folders = top.table("folders")
    known_folders = {folder: folders.text(folder) for folder in folders.keys()}  # noqa: SIM118 - a method of ours
    ignored = frozenset(top.texts("ignored_events"))
    lines = [text.count("\n", 0, found.start()) + 1 for found in _RULE_HEADING.finditer(text)]
    rules: dict[str, list[Rule]] = {}
    for number, entry in enumerate(top.tables("rules")):
        line = f"{file}:{lines[number]}" if number < len(lines) else file
        table = _Table(entry, line, f"rules[{number}].")
        rule = _rule(table, known_folders)
        for event in table.texts("events"):
            if event in ignored:
                table.refuse("events", f"names {event!r}, which ignored_events names too")
            rules.setdefault(event, []).append(rule)
        table.finish()
    top.finish()
    return ProviderDefinition(
        name=name,
        version=version,
        form=form,
        accepts_token=accepts_token,
        scheme=scheme,
        delivery=delivery,
        rules={event: tuple(found) for event, found in rules.items()},
        ignored_events=ignored,
    )


class _Table:
    """One TOML table: typed reads, and a refusal for what nobody read."""

    def __init__(self, raw: Mapping[str, object], file: str, place: str) -> None:
        self._raw = raw
        self._file = file
        self._place = place
        self._read: set[str] = set()

    def refuse(self, key: str, why: str) -> NoReturn:
        raise StartRefused(why=f"provider file {self._file}: {self._place}{key} {why}")

    def has(self, key: str) -> bool:
        return key in self._raw

    def is_table(self, key: str) -> bool:
        return isinstance(self._raw.get(key), dict)

    def keys(self) -> Iterable[str]:
        return self._raw.keys()

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

    def table(self, key: str) -> "_Table":
        value = self._get(key, {})
        if not isinstance(value, dict):
            self.refuse(key, "must be a table")
        return _Table(value, self._file, f"{self._place}{key}.")

    def tables(self, key: str) -> list[Mapping[str, object]]:
        value = self._get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.refuse(key, "must be a list of tables")
        return value

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


def _scheme(table: _Table) -> Scheme:
    signed_text = table.text("signed", "{body}")
    pieces = _SIGNED_PART.split(signed_text)
    signed: list[bytes | Part] = []
    for position, piece in enumerate(pieces):
        if position % 2:
            signed.append(_PARTS[piece])
        elif piece:
            signed.append(piece.encode())
    if not {"body", "url"} & set(signed):
        table.refuse("signed", "must name {body}")
    scheme = Scheme(
        header=table.text("header").lower(),
        is_token=table.one_of("type", {"hmac": False, "token": True}, False),
        algorithm=table.one_of("algorithm", {"sha256": "sha256", "sha1": "sha1"}, "sha256"),
        encoding=table.one_of("encoding", {"hex": "hex", "base64": "base64"}, "hex"),
        prefix=table.text("prefix", ""),
        separator=table.text("separator", ""),
        timestamp_prefix=table.text("timestamp_prefix", ""),
        timestamp_header=table.text("timestamp_header", "").lower(),
        timestamp_unit_s=table.one_of("timestamp_unit", {"s": 1.0, "ms": 0.001}, 1.0),
        id_header=table.text("id_header", "").lower(),
        signed=tuple(signed),
        key_form=table.one_of("key_form", {"text": "text", "whsec": "whsec"}, "text"),
        tolerance_s=table.number("tolerance_s", 0.0) if table.has("tolerance_s") else None,
    )
    if "timestamp" in signed and not scheme.is_timed:
        table.refuse("signed", "names {timestamp}, and neither timestamp_header nor timestamp_prefix is set")
    if "id" in signed and not scheme.id_header:
        table.refuse("signed", "names {id}, and id_header is not set")
    table.finish()
    return scheme


_PARTS: Final[dict[str, Part]] = {
    "body": "body",
    "timestamp": "timestamp",
    "id": "id",
    "method": "method",
    "url": "url",
}


def _optional(table: _Table, key: str) -> Expression | None:
    return table.compiled(key, compile_expression) if table.has(key) else None


def _delivery(table: _Table) -> DeliveryFacts:
    facts = DeliveryFacts(
        id_headers=tuple(header.lower() for header in table.texts("id_headers")),
        id=_optional(table, "id"),
        event_header=table.text("event_header", "").lower(),
        event=_optional(table, "event"),
        action=_optional(table, "action"),
        form_field=table.text("form_field", ""),
        kept_headers=tuple(header.lower() for header in table.texts("kept_headers")),
    )
    table.finish()
    return facts


def _rule(table: _Table, folders: Mapping[str, str]) -> Rule:
    folder = table.text("folder", "")
    if folder and folder not in folders:
        table.refuse("folder", f"names {folder!r}, which [folders] does not define")
    before = folders.get(folder, "").rstrip("/")

    def template(text: str) -> Template:
        whole = text if text.startswith("/") else f"{before}/{text}"
        why = check_write_path(_PLACEHOLDER.sub("x", whole))
        if why is not None:
            raise ValueError(why)
        return compile_template(whole)

    object_type = table.text("object")
    if _OBJECT_TYPE.match(object_type) is None:
        table.refuse("object", "must be a type of objects: a-z 0-9 _")
    identity = table.text("id")
    if "{" not in identity:
        table.refuse("id", "has no expression: all objects would be one")
    actions: dict[str, Action] = {}
    for kind in (Action.UPSERT, Action.DELETE, Action.PATCH, Action.IGNORE):
        for name in table.texts(kind.value):
            if name in actions:
                table.refuse(kind.value, f"names {name!r}, which {actions[name].value} names too")
            actions[name] = kind
    properties = table.table("properties")
    compiled_properties = tuple((key, properties.compiled(key, compile_expression)) for key in properties.keys())  # noqa: SIM118 - as above
    return Rule(
        condition=_optional(table, "if"),
        actions=actions,
        otherwise=table.one_of("kind", _ACTIONS, Action.UPSERT),
        object_id=table.compiled("id", lambda text: compile_template(f"{object_type}/{text}")),
        path=table.compiled("path", template),
        content=_content(table),
        time=_optional(table, "time"),
        time_reader=table.one_of("time_format", FORMATS, FORMATS["iso-8601"]),
        properties=compiled_properties,
        relations=tuple(table.compiled("relations", template, text) for text in table.texts("relations")),
    )


def _content(table: _Table) -> Expression:
    """An expression, or a table of members: then the content is an object of those that are not null."""
    if table.is_table("content"):
        members = table.table("content")
        parts = tuple((key, members.compiled(key, compile_expression)) for key in members.keys())  # noqa: SIM118 - as above

        return lambda document: {key: value for key, part in parts if (value := part(document)) is not None}
    return table.compiled("content", compile_expression, table.text("content", "@"))
