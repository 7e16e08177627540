"""The settings of built-in writers and fetchers: which URL each provider has, and how hard it may be asked."""

import ipaddress
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from relayfile.settings.definition import Definition, declare

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}(?:/[A-Za-z0-9_.-]{1,64})?\Z")
_FIELD = re.compile(r"\{([^{}]*)\}")
FETCH_FIELDS: Final = frozenset({"workspace", "folder", "type", "id"})
CONCURRENCY_DEFAULT: Final = 4
CONCURRENCY_MAX: Final = 256
RATE_MAX: Final = 1_000.0


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class TargetDefinition:
    """One URL that Relayfile calls by itself."""

    provider: str
    object_type: str
    """Only for objects of this type; empty: for all others."""
    url: str
    """Of a fetch a template with {workspace}, {folder}, {type} and {id}."""
    credential_file: Path
    """Of a writer the secret that signs requests; of a fetcher header lines such as `Authorization: Bearer ...`."""
    concurrency_max: int
    """Requests at a time."""
    rate_max: float
    """Requests per second; 0: as fast as the target answers."""


def parse_targets(raw: str, *, template: bool) -> tuple[TargetDefinition, ...]:
    """``{"<provider>": {"url": ..., "credential_file": ...}}``, for a fetch also ``"<provider>/<type>"``."""
    try:
        table = json.loads(raw or "{}", object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON (character {error.pos})") from None
    if not isinstance(table, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - what is wrong is a value's text
    return tuple(_target(name, value, template=template) for name, value in table.items())


def _target(name: str, value: object, *, template: bool) -> TargetDefinition:
    if _NAME.match(name) is None or ("/" in name and not template):
        allowed = "a provider, or a provider and a type as in notion/page" if template else "a provider"
        raise ValueError(f"has the target {name!r}, which does not name {allowed}")
    provider, _, object_type = name.partition("/")
    known = {"url", "credential_file", "concurrency_max", "rate_max"}
    if not isinstance(value, dict) or not value.keys() <= known or not value.keys() >= {"url", "credential_file"}:
        raise ValueError(f"must say of {name!r}: url, credential_file, perhaps concurrency_max and rate_max")
    url, credential = value["url"], value["credential_file"]
    if not isinstance(url, str) or not isinstance(credential, str) or not credential:
        raise ValueError(f"has something other than text as url or credential_file of {name!r}")
    concurrency = value.get("concurrency_max", CONCURRENCY_DEFAULT)
    if type(concurrency) is not int or not 1 <= concurrency <= CONCURRENCY_MAX:
        raise ValueError(f"has a concurrency_max of {name!r} that is not between 1 and {CONCURRENCY_MAX}")
    rate = value.get("rate_max", 0)
    if type(rate) not in (int, float) or not 0 <= rate <= RATE_MAX:
        raise ValueError(f"has a rate_max of {name!r} that is not between 0 and {RATE_MAX:g} requests per second")
    _check_url(name, url, template=template)
    return TargetDefinition(provider, object_type, url, Path(credential), concurrency, float(rate))


def _check_url(name: str, url: str, *, template: bool) -> None:
    fields = set(_FIELD.findall(url)) if template else set()
    if fields - FETCH_FIELDS:
        raise ValueError(
            f"has in the url of {name!r} a field other than {{workspace}}, {{folder}}, {{type}} and {{id}}"
        )
    if template and "id" not in fields:
        raise ValueError(f"has no {{id}} in the url of {name!r}")
    parts = urlsplit(_FIELD.sub("x", url) if template else url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or "{" in (parts.netloc):
        raise ValueError(f"has a url of {name!r} that is not https://HOST/PATH without a user")
    if template and _FIELD.search(urlsplit(url).netloc):
        raise ValueError(f"has a field in the host of {name!r}: what comes from a webhook chooses no host")


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"says {name!r} twice")
        found[name] = value
    return found


def render_targets(targets: tuple[TargetDefinition, ...]) -> str:
    """The JSON that ``parse_targets`` reads."""
    return (
        json.dumps(
            {
                f"{each.provider}/{each.object_type}".rstrip("/"): {
                    "url": each.url,
                    "credential_file": str(each.credential_file),
                    "concurrency_max": each.concurrency_max,
                    "rate_max": each.rate_max,
                }
                for each in targets
            }
        )
        if targets
        else ""
    )


def declare_targets(why: str, *, template: bool) -> tuple[TargetDefinition, ...]:
    """The setting."""
    none: tuple[TargetDefinition, ...] = ()
    example = '{"PROVIDER": {"url": "https://...", "credential_file": "PATH"}}'

    def parse(raw: str) -> tuple[TargetDefinition, ...]:
        return parse_targets(raw, template=template)

    return declare(none, Definition(parse, render_targets, example, why))


def parse_networks(raw: str) -> tuple[Network, ...]:
    """``10.0.0.0/8,fd00::/8``."""
    found: list[Network] = []
    for each in raw.split(","):
        if each.strip():
            try:
                found.append(ipaddress.ip_network(each.strip()))
            except ValueError:
                raise ValueError(f"has {each.strip()!r}, which is not a network such as 10.0.0.0/8") from None
    return tuple(found)


def networks(why: str) -> tuple[Network, ...]:
    """A comma-separated list of IP networks."""
    none: tuple[Network, ...] = ()
    definition = Definition(
        parse_networks, lambda value: ",".join(map(str, value)), "networks such as 10.0.0.0/8,fd00::/8", why
    )
    return declare(none, definition)
