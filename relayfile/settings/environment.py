"""From the environment to frozen settings, and back: the only code that reads ``os.environ``.

A value that cannot be read, or is out of range, is a ``SettingError`` that names the variable, its problem and what
to do. A ``RELAYFILE_`` variable that no setting has is refused too, with the nearest name: a typo must not silently
mean "default".
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from relayfile.errors import SettingError
from relayfile.settings.definition import KEY, Definition
from relayfile.settings.groups import ClientSettings, ClusterSettings, CommonSettings, TlsSettings
from relayfile.settings.ingest import IngestSettings
from relayfile.settings.store import StoreSettings
from relayfile.settings.syncd import SyncdSettings

Settings = CommonSettings | ClientSettings | TlsSettings
S = TypeVar(
    "S", CommonSettings, ClusterSettings, StoreSettings, IngestSettings, SyncdSettings, ClientSettings, TlsSettings
)

PREFIX = "RELAYFILE_"
GROUPS: Mapping[str, type[Settings]] = {
    "store": StoreSettings,
    "ingest": IngestSettings,
    "syncd": SyncdSettings,
    "command line": ClientSettings,
}
FOREIGN = frozenset({"RELAYFILE_TEST_STRICT"})
"""Variables that tests and tools read, and no process."""

_KUBERNETES_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$")
"""What Kubernetes adds by itself for a Service named relayfile-...; no setting may be named so."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as it is in force, for people. Secrets are masked."""

    name: str
    value: str
    default: str
    range: str
    meaning: str
    source: str
    """``default``, ``environment`` or ``option``."""
    used_by: tuple[str, ...]
    is_secret: bool = False


def load(group: type[S], environ: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None) -> S:
    """The settings of one kind of process: ``options`` (command line, by variable name) before the environment."""
    environ = os.environ if environ is None else environ
    refuse_unknown(environ)
    given = _given(environ, options or {})
    values = {
        attribute: _read(env, definition, given[env][0])
        for attribute, env, definition in definitions(group)
        if env in given
    }
    return group(**values)


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """``SettingError`` for a variable that looks like ours and is not."""
    known = {env for group in GROUPS.values() for _, env, _ in definitions(group)} | FOREIGN
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or _KUBERNETES_LINK.search(name):
            continue
        near = difflib.get_close_matches(name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], n=1)
        raise SettingError(
            variable=name,
            problem="is no setting of relayfile",
            way_out=f"did you mean {PREFIX}{near[0]}?" if near else "`relayfile config` lists all settings",
        )


def definitions(group: type[Settings]) -> Iterator[tuple[str, str, Definition[Any]]]:
    """(attribute, variable, definition) of each setting of a group, in the order of declaration."""
    for field in fields(group):
        definition: Definition[Any] = field.metadata[KEY]
        yield field.name, definition.env or PREFIX + field.name.removesuffix("_s").upper(), definition


def child_environment(own: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `own` variables on top, for a process that it starts."""
    return {**os.environ, **own}


def describe(environ: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None) -> list[Row]:
    """Every setting of every process once, with its value in force and where that came from."""
    environ = os.environ if environ is None else environ
    refuse_unknown(environ)
    given = _given(environ, options or {})
    rows: dict[str, Row] = {}
    for process, group in GROUPS.items():
        for attribute, env, definition in definitions(group):
            earlier = rows.get(env)
            default = definition.render(_default(group, attribute))
            raw, source = given.get(env, (default, "default"))
            value = definition.render(_read(env, definition, raw))
            rows[env] = Row(
                name=env,
                value="********" if definition.secret and value else value,
                default=default,
                range=definition.range,
                meaning=definition.why,
                source=source,
                used_by=(*earlier.used_by, process) if earlier else (process,),
                is_secret=definition.secret,
            )
    return list(rows.values())


def _given(environ: Mapping[str, str], options: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    given = {name: (value, "environment") for name, value in environ.items() if name.startswith(PREFIX)}
    given.update({name: (value, "option") for name, value in options.items()})
    return given


def _read(env: str, definition: Definition[Any], raw: str) -> Any:
    try:
        return definition.parse(raw)
    except ValueError as error:
        raise SettingError(variable=env, problem=str(error), way_out=f"accepted: {definition.range}") from None


def _default(group: type[Settings], attribute: str) -> Any:
    return next(field.default for field in fields(group) if field.name == attribute)


__all__ = [
    "FOREIGN",
    "GROUPS",
    "ClientSettings",
    "ClusterSettings",
    "CommonSettings",
    "IngestSettings",
    "Row",
    "Settings",
    "StoreSettings",
    "SyncdSettings",
    "child_environment",
    "definitions",
    "describe",
    "load",
    "refuse_unknown",
]
