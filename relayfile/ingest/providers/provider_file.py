"""Reading provider files: TOML to a `ProviderDefinition`, with every expression compiled.

Owns the format (docs/providers/README.md). Refuses, before a process starts, everything that could fail or surprise
when a request comes; each refusal names the file, the line, the key and the reason.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from relayfile.errors import StartRefused
from relayfile.ingest.providers.definition import (
    Action,
    BodyForm,
    Challenge,
    DeliveryFacts,
    Handshake,
    Proof,
    ProviderDefinition,
    Rule,
)
from relayfile.ingest.providers.expression import Expression, compile_expression
from relayfile.ingest.providers.functions import FUNCTIONS
from relayfile.ingest.providers.provider_time import FORMATS
from relayfile.ingest.providers.template import Template, compile_template
from relayfile.ingest.providers.toml_table import TomlLines, TomlTable
from relayfile.ingest.webhooks.signature import Part, Scheme
from relayfile.paths import check_write_path
from relayfile.pinned_json import JsonValue
from relayfile.wire import is_provider_name, may_keep_header

_OBJECT_TYPE = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_SIGNED_PART = re.compile(r"\{(body|timestamp|id|method|url)\}")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_ITEMS = re.compile(r"@|[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*){0,7}\Z")
_ACTIONS: Final[dict[str, Action]] = {each.value: each for each in Action}


def load_provider(path: Path) -> ProviderDefinition:
    """The definition in the file at ``path``. `StartRefused` names file, line, key and reason."""
    try:
        return parse_provider(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise StartRefused(why=f"provider file {path.name} cannot be read: {error}") from None


def parse_provider(text: str, file: str) -> ProviderDefinition:
    """The definition in ``text``; ``file`` names it in refusals."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StartRefused(why=f"provider file {file}: {error}") from None
    top = TomlTable(raw, file, TomlLines(text))
    name = top.text("name")
    if not is_provider_name(name):
        top.refuse("name", "must have 1 to 64 characters of a-z 0-9 -")
    function = top.text("function", "")
    if function and function not in FUNCTIONS:
        top.refuse("function", f"must be one of {', '.join(FUNCTIONS)}")
    proof = _proof(top)
    delivery = _delivery(top.table("delivery"))
    ignored, lost = frozenset(top.texts("ignored_events")), frozenset(top.texts("lost_events"))
    definition = ProviderDefinition(
        name=name,
        title=top.text("title", name),
        version=top.text("version"),
        documentation=top.text("documentation", ""),
        form=top.one_of("body", {each.value: each for each in BodyForm}, BodyForm.EVENT),
        proof=proof,
        delivery=delivery,
        shape=FUNCTIONS.get(function),
        rules=_rules(top, {"ignored_events": ignored, "lost_events": lost}),
        ignored_events=ignored,
        lost_events=lost,
    )
    top.finish()
    return definition


def _rules(top: TomlTable, elsewhere: Mapping[str, frozenset[str]]) -> dict[str, tuple[Rule, ...]]:
    """By event. ``elsewhere`` are the events that must have no rule, by the key that names them."""
    folders = top.table("folders")
    known_folders = {folder: folders.text(folder) for folder in folders.names()}
    rules: dict[str, list[Rule]] = {}
    for table in top.tables("rules"):
        rule = _rule(table, known_folders)
        events = table.texts("events")
        table.finish()
        if not events:
            table.refuse("events", "is missing: no event would reach the rule")
        for event in events:
            for key, names in elsewhere.items():
                if event in names:
                    table.refuse("events", f"names {event!r}, which {key} names too")
            rules.setdefault(event, []).append(rule)
    return {event: tuple(found) for event, found in rules.items()}


def _proof(top: TomlTable) -> Proof:
    accepts_token = top.flag("accepts_token")
    schemes = tuple(_scheme(table) for table in top.one_or_more("signature"))
    if not schemes and not accepts_token:
        top.refuse("signature", "is missing: requests could not be authenticated")
    headers = [scheme.header for scheme in schemes]
    if len(set(headers)) < len(headers):
        top.refuse("signature", "names a header twice: the second could never decide")
    challenge = _challenge(top.table("challenge")) if top.has("challenge") else None
    handshake = _handshake(top.table("handshake")) if top.has("handshake") else None
    return Proof(schemes, accepts_token, challenge, handshake, answers_head=top.flag("answers_head"))


def _challenge(table: TomlTable) -> Challenge:
    challenge = Challenge(frozenset(table.texts("events")), _content(table, "answer"))
    if not challenge.events:
        table.refuse("events", "is missing: nothing would be a challenge")
    table.finish()
    return challenge


def _handshake(table: TomlTable) -> Handshake:
    handshake = Handshake(table.text("header", "").lower(), _optional(table, "secret"))
    if bool(handshake.header) is (handshake.secret is not None):
        table.refuse("header", "or secret must be there, and not both: one of them finds the secret")
    table.finish()
    return handshake


def _scheme(table: TomlTable) -> Scheme:
    signed_text = table.text("signed", "{body}")
    pieces = _SIGNED_PART.split(signed_text)
    signed: list[bytes | Part] = []
    for position, piece in enumerate(pieces):
        if position % 2:
            signed.append(_PARTS[piece])
        elif piece:
            signed.append(piece.encode())
    if "body" not in signed:
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
        repeats_for_s=table.number("repeats_for_s", 0.0),
        body_time=_optional(table, "body_time"),
        url_decoded=table.text("url_decoded", ""),
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


def _optional(table: TomlTable, key: str) -> Expression | None:
    return table.compiled(key, compile_expression) if table.has(key) else None


def _delivery(table: TomlTable) -> DeliveryFacts:
    id_headers = tuple(header.lower() for header in table.texts("id_headers"))
    event_header, form_field = table.text("event_header", "").lower(), table.text("form_field", "")
    kept = dict.fromkeys(header.lower() for header in table.texts("kept_headers"))
    # What normalising needs is kept whether named or not.
    needed = {"id_headers": id_headers, "event_header": (event_header,), "kept_headers": tuple(kept)}
    for key, headers in needed.items():
        for header in filter(None, headers):
            if not may_keep_header(header):
                table.refuse(key, f"names {header!r}, which may carry a credential and is never stored")
            kept[header] = None
    if form_field:
        kept["content-type"] = None
    items = table.text("items", "")
    if items and _ITEMS.match(items) is None:
        table.refuse("items", "must be @ or the members on the way to a list: a.b")
    if items and id_headers:
        table.refuse("id_headers", "are of the whole request, which has several deliveries: find the id in the body")
    split = table.text("split", "")
    if split and table.has("action"):
        table.refuse("split", "finds the action in the event: action cannot be there too")
    facts = DeliveryFacts(
        id_headers=id_headers,
        id=table.compiled("id", _compile_id) if table.has("id") else None,
        event_header=event_header,
        event=_optional(table, "event"),
        action=_optional(table, "action"),
        split=split,
        form_field=form_field,
        kept_headers=tuple(kept),
        items=_steps(items),
    )
    table.finish()
    return facts


def _steps(items: str) -> tuple[str, ...] | None:
    if not items:
        return None
    return () if items == "@" else tuple(items.split("."))


def _compile_id(text: str) -> Template:
    """A template where the text has a brace, else one expression."""
    if "{" in text:
        return compile_template(text)
    expression = compile_expression(text)

    def found(document: JsonValue) -> str | None:
        value = expression(document)
        if type(value) is int:
            return str(value)
        return value if isinstance(value, str) else None

    return found


def _rule(table: TomlTable, folders: Mapping[str, str]) -> Rule:
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
    for kind in Action:
        for name in table.texts(kind.value):
            if name in actions:
                table.refuse(kind.value, f"names {name!r}, which {actions[name].value} names too")
            actions[name] = kind
    properties = table.table("properties")
    compiled_properties = tuple((key, properties.compiled(key, compile_expression)) for key in properties.names())
    return Rule(
        condition=_optional(table, "if"),
        actions=actions,
        otherwise=table.one_of("kind", _ACTIONS, Action.UPSERT),
        object_id=table.compiled("id", lambda text: compile_template(f"{object_type}/{text}", separator=":")),
        path=table.compiled("path", template),
        content=_content(table, default="@"),
        time=_optional(table, "time"),
        time_reader=table.one_of("time_format", FORMATS, FORMATS["iso-8601"]),
        properties=compiled_properties,
        relations=tuple(table.compiled("relations", template, text) for text in table.texts("relations")),
    )


def _content(table: TomlTable, key: str = "content", default: str | None = None) -> Expression:
    """An expression, or a table of members: then the content is an object of those that are not null."""
    if table.is_table(key):
        members = table.table(key)
        parts = tuple((name, members.compiled(name, compile_expression)) for name in members.names())
        return lambda document: {key: value for key, part in parts if (value := part(document)) is not None}
    return table.compiled(key, compile_expression, table.text(key, default))
