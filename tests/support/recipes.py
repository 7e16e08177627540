"""The recipes of docs/grpc.md: their commands, the answers that are shown, and whether an answer is as shown."""

import json
import re
import shlex
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf import json_format
from google.rpc import error_details_pb2

PAGE = Path(__file__).resolve().parents[2] / "docs" / "grpc.md"
BLOCK = re.compile(r"^```(?:sh|json|text) ([a-z-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANYTHING = "…"
Json: TypeAlias = Any
Bound: TypeAlias = dict[str, str]


@dataclass(frozen=True, slots=True)
class Command:
    """What a line of either tool asks for. Variables of the shell are as they are written."""

    method: str
    """`package.Service/Rpc`; empty: it lists what is there."""
    address: str
    headers: tuple[str, ...]
    requests: tuple[Json, ...]


@dataclass(slots=True)
class Recipe:
    """One question, for both tools, and what is shown of the answer."""

    buf: str
    grpcurl: str
    answers: list[Json] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    error: Json = None
    details: list[Json] = field(default_factory=list)

    @property
    def method(self) -> str:
        return command_of(self.buf).method


def blocks(kind: str) -> list[str]:
    """All blocks of a kind, in order."""
    return [text for name, text in BLOCK.findall(PAGE.read_text()) if name == kind]


def recipes() -> list[Recipe]:
    """In the order of the page, which is that of a session."""
    found: list[Recipe] = []
    for kind, text in BLOCK.findall(PAGE.read_text()):
        match kind:
            case "recipe":
                buf, _, grpcurl = text.partition("\ngrpcurl ")
                found.append(Recipe(buf, f"grpcurl {grpcurl}"))
            case "answer" if text.lstrip().startswith("{"):
                found[-1].answers = list(objects(text))
            case "answer":
                found[-1].lines = text.split()
            case "error":
                (found[-1].error,) = objects(text)
            case "details":
                found[-1].details += objects(text)
    return found


def command_of(text: str) -> Command:
    """What a command line says."""
    words = shlex.split(text.replace("\\\n", " "))
    headers, bodies, rest = [], "", []
    words = words[2:] if words[0] == "buf" else words[1:]
    while words:
        match words.pop(0):
            case "-H":
                headers.append(words.pop(0))
            case "-d":
                bodies = words.pop(0)
            case "--protocol":
                assert words.pop(0) == "grpc"
            case "--http2-prior-knowledge" | "-plaintext" | "--list-methods":
                pass
            case word:
                rest.append(word)
    if rest[0].startswith("http://"):
        address, _, method = rest[0].removeprefix("http://").partition("/")
    else:
        address, method = rest[0], "" if rest[1] == "list" else rest[1]
    return Command(method, address, tuple(headers), tuple(objects(bodies)))


def objects(text: str) -> Iterator[Json]:
    """JSON values one after the other; an incomplete one at the end is left out."""
    decoder, at = json.JSONDecoder(), 0
    while True:
        at += len(text) - at - len(text[at:].lstrip())
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            return
        yield value


def as_shown(shown: Json, came: Json, bound: Bound) -> bool:
    """Whether an answer has what is shown of it. A variable that is not bound yet is bound to what came."""
    if shown == ANYTHING:
        return bool(came)
    if isinstance(shown, str) and shown.startswith("$"):
        return bool(came) and bound.setdefault(shown[1:], came) == came
    if isinstance(shown, dict):
        return isinstance(came, dict) and all(key in came and as_shown(shown[key], came[key], bound) for key in shown)
    if isinstance(shown, list):
        return (
            isinstance(came, list)
            and len(shown) == len(came)
            and all(as_shown(one, other, bound) for one, other in zip(shown, came, strict=True))
        )
    return bool(shown == came)


def all_shown(shown: list[Json], came: list[Json], bound: Bound) -> bool:
    """Whether the messages came, in this order; others, such as progress, may come between them."""
    waiting = list(shown)
    for each in came:
        attempt = dict(bound)
        if waiting and as_shown(waiting[0], each, attempt):
            bound.update(attempt)
            waiting.pop(0)
    return not waiting


def camel(value: Json) -> Json:
    """With the names that JSON has by the rules: old versions of grpcurl print those of the files."""
    if isinstance(value, dict):
        return {re.sub(r"_([a-z])", lambda found: found[1].upper(), key): camel(each) for key, each in value.items()}
    return [camel(each) for each in value] if isinstance(value, list) else value


def decoded(detail: Json) -> Json:
    """A detail of an error as `buf curl` prints it, in the form in which grpcurl prints it."""
    kind = getattr(error_details_pb2, detail["type"].removeprefix("google.rpc."))
    message = kind.FromString(b64decode(detail["value"] + "=="))
    return {"@type": f"type.googleapis.com/{detail['type']}", **json_format.MessageToDict(message)}
