"""The setting of apps with one webhook URL for many customers: which provider each is, and where its tenant stands."""

import json
from dataclasses import dataclass

from relayfile.route_file import check_app
from relayfile.settings.definition import Definition, declare

_KEYS = {"provider", "tenant"}


@dataclass(frozen=True, slots=True)
class AppDefinition:
    """One app, as it is configured. Whether the expression and the provider are known is found out at the start."""

    name: str
    provider: str
    tenant: str
    """Finds the customer in a delivery: an expression like those of provider files, or `header:` and a name."""


def parse_apps(raw: str) -> tuple[AppDefinition, ...]:
    """``{"<app>": {"provider": "github", "tenant": "installation.id"}}``."""
    try:
        table = json.loads(raw or "{}", object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON (character {error.pos})") from None
    if not isinstance(table, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - what is wrong is a value's text
    return tuple(_app(name, value) for name, value in table.items())


def _app(name: str, value: object) -> AppDefinition:
    if (why := check_app(name)) is not None:
        raise ValueError(f"has the app {name!r}, whose name {why}")
    if not isinstance(value, dict) or value.keys() != _KEYS:
        raise ValueError(f'must say of the app {name!r} exactly {{"provider": ..., "tenant": ...}}')
    if not all(isinstance(each, str) and each for each in value.values()):
        raise ValueError(f"has something other than non-empty text in the app {name!r}")
    return AppDefinition(name, value["provider"], value["tenant"])


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"says {name!r} twice")
        found[name] = value
    return found


def render_apps(apps: tuple[AppDefinition, ...]) -> str:
    """The JSON that ``parse_apps`` reads."""
    return json.dumps({app.name: {"provider": app.provider, "tenant": app.tenant} for app in apps}) if apps else ""


def declare_apps() -> tuple[AppDefinition, ...]:
    """The setting."""
    none: tuple[AppDefinition, ...] = ()
    return declare(
        none,
        Definition(
            parse_apps,
            render_apps,
            '{"<app>": {"provider": "github", "tenant": "installation.id"}}',
            "apps with one URL and one secret for many customers (docs/providers/apps.md)",
        ),
    )
