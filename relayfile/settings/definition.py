"""What one setting is: its type, default, range and meaning, and how its text is read and written.

A setting is one line in a settings class: ``linger_s: float = duration("2ms", "0ms", "1s", "why it exists")``. The name
of its environment variable follows from the attribute (``linger_s`` -> ``RELAYFILE_LINGER``; units of durations are in
the value, units of sizes and counts are in the name) unless ``env=`` says otherwise.

Units: durations are seconds as float, written ``250ms 3s 2m 1h 7d``; sizes are bytes as int, written ``16MiB`` or
``16777216``. Refuses to know which settings there are, and never looks at the environment.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
C = TypeVar("C", bound=str)

KEY = "setting"
"""Where a dataclass field's metadata holds its ``Definition``."""

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_PROVIDER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_CERTIFICATE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|[a-z][a-z0-9+.-]*://[^\s,*]+")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)\Z")


@dataclass(frozen=True, slots=True)
class Definition(Generic[T]):
    """How one setting is read, shown and explained.

    ``parse`` raises ``ValueError`` with a phrase that completes "VARIABLE ...", such as ``is not a number``.
    """

    parse: Callable[[str], T]
    render: Callable[[T], str]
    range: str
    """The accepted values in words; also the way out that an error names."""
    why: str
    env: str | None = None
    secret: bool = False


def declare(default: T, definition: Definition[T]) -> T:
    """A dataclass field with its definition beside it."""
    return field(default=default, metadata={KEY: definition})


def parse_duration(text: str) -> float:
    """Seconds. A unit is required, except for 0."""
    match = _QUANTITY.match(text.strip())
    if match is None or (match[2] not in _SECONDS and (match[2] or float(match[1]))):
        raise ValueError(f"is {text!r}, which is not a duration with a unit")
    return float(match[1]) * _SECONDS.get(match[2], 1.0)


def render_duration(seconds: float) -> str:
    """The shortest exact form: ``0.25`` -> ``250ms``."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _SECONDS[unit]
        if seconds and count >= 1 and abs(count - round(count)) < 1e-9:
            return f"{round(count)}{unit}"
    return "0s" if not seconds else f"{seconds * 1e6:.0f}us"


def parse_size(text: str) -> int:
    """Bytes."""
    match = _QUANTITY.match(text.strip())
    if match is None or match[2] not in _BYTES:
        raise ValueError(f"is {text!r}, which is not a size")
    return int(float(match[1]) * _BYTES[match[2]])


def render_size(count: int) -> str:
    """The shortest exact form: ``1048576`` -> ``1MiB``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}"
    return str(count)


def _within(parse: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    def checked(text: str) -> float:
        value = parse(text)
        if not low <= value <= high:
            raise ValueError(f"is {text}, which is out of range")
        return value

    return checked


def duration(default: str, low: str, high: str, why: str, env: str | None = None) -> float:
    """A time span in seconds; the attribute ends in ``_s``, the variable has no unit."""
    parse = _within(parse_duration, parse_duration(low), parse_duration(high))
    return declare(parse(default), Definition(parse, render_duration, f"{low} to {high}", why, env))


def size(default: str, low: str, high: str, why: str, env: str | None = None) -> int:
    """A number of bytes; the attribute says ``bytes``."""
    check = _within(parse_size, parse_size(low), parse_size(high))
    definition = Definition(lambda text: int(check(text)), render_size, f"{low} to {high}", why, env)
    return declare(definition.parse(default), definition)


def count(default: int, low: int, high: int, why: str, env: str | None = None) -> int:
    """A whole number of what the attribute's name says."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"is {text!r}, which is not a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"is {value}, which is out of range")
        return value

    return declare(default, Definition(parse, str, f"{low} to {high}", why, env))


def count_or_off(default: int, low: int, high: int, why: str, env: str | None = None) -> int:
    """As ``count``; -1 is off."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"is {text!r}, which is not a whole number") from None
        if value != -1 and not low <= value <= high:
            raise ValueError(f"is {value}, which is neither {low} to {high} nor -1 (off)")
        return value

    return declare(default, Definition(parse, str, f"{low} to {high}, or -1: off", why, env))


def ratio(default: float, why: str, env: str | None = None) -> float:
    """A share between 0 and 1."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"is {text!r}, which is not a number") from None
        if not 0 <= value <= 1:
            raise ValueError(f"is {text}, which is out of range")
        return value

    return declare(default, Definition(parse, lambda value: f"{value:g}", "0 to 1", why, env))


def flag(default: bool, why: str, env: str | None = None) -> bool:
    """On or off."""
    words = {"on": True, "true": True, "1": True, "yes": True, "off": False, "false": False, "0": False, "no": False}

    def parse(text: str) -> bool:
        if text.strip().lower() not in words:
            raise ValueError(f"is {text!r}, which is neither on nor off")
        return words[text.strip().lower()]

    return declare(default, Definition(parse, lambda value: "on" if value else "off", "on or off", why, env))


def choice(default: C, options: tuple[C, ...], why: str, env: str | None = None) -> C:
    """One of a few words."""

    def parse(text: str) -> C:
        for option in options:
            if text.strip() == option:
                return option
        raise ValueError(f"is {text!r}, which is not known")

    return declare(default, Definition(parse, str, " or ".join(options), why, env))


def text(default: str, why: str, *, env: str | None = None, accepts: str = "text", secret: bool = False) -> str:
    """Any text; empty is unset."""
    return declare(default, Definition(str.strip, str, accepts, why, env, secret=secret))


def path(default: str, why: str, env: str | None = None) -> Path:
    """A file or directory of this machine."""

    def parse(raw: str) -> Path:
        if not raw:
            raise ValueError("is empty")
        return Path(raw).expanduser()

    return declare(Path(default), Definition(parse, str, "a path", why, env))


def optional_path(why: str, env: str | None = None) -> Path | None:
    """A file or directory, or none (unset or empty)."""

    def parse(raw: str) -> Path | None:
        return Path(raw).expanduser() if raw else None

    unset: Path | None = None
    return declare(unset, Definition(parse, lambda value: str(value or ""), "a path, or empty", why, env))


def parse_address(raw: str) -> str:
    """``host:port`` (port 0: any free one; ``[::1]:port`` for IPv6) or ``unix:PATH``."""
    raw = raw.strip()
    if raw.startswith("unix:") and len(raw) > len("unix:"):
        return raw
    host, colon, port = raw.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"is {raw!r}, which is not an address")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"is {raw!r}, where the IPv6 address lacks its brackets")
    return raw


_ADDRESS_RANGE = "host:port (port 0: any free one)"


def endpoint(default: str, why: str, env: str | None = None) -> str:
    """Where to listen, or whom to call."""
    return declare(parse_address(default), Definition(parse_address, str, _ADDRESS_RANGE, why, env))


def optional_endpoint(why: str, env: str | None = None) -> str:
    """An address, or empty."""

    def parse(raw: str) -> str:
        return parse_address(raw) if raw.strip() else ""

    return declare("", Definition(parse, str, _ADDRESS_RANGE + ", or empty", why, env))


def names(default: str, why: str, env: str | None = None) -> tuple[str, ...]:
    """A comma-separated list of providers' names."""

    def parse(raw: str) -> tuple[str, ...]:
        found = tuple(item.strip() for item in raw.split(",") if item.strip())
        for name in found:
            if _PROVIDER_NAME.fullmatch(name) is None:
                raise ValueError(f"names {name!r}, which is no provider's name")
        return found

    return declare(parse(default), Definition(parse, ",".join, "name,name,...", why, env))


def certificate_names(why: str, env: str | None = None) -> tuple[str, ...]:
    """A comma-separated list of DNS names and URIs, as certificates have them; DNS names in lower case."""

    def parse(raw: str) -> tuple[str, ...]:
        found = tuple(item.strip() for item in raw.split(",") if item.strip())
        for name in found:
            if _CERTIFICATE_NAME.fullmatch(name) is None:
                raise ValueError(f"names {name!r}, which is neither a DNS name nor a URI")
        return tuple(name if "://" in name else name.lower() for name in found)

    none: tuple[str, ...] = ()
    return declare(none, Definition(parse, ",".join, "name,name,... (DNS names or URIs, no wildcards)", why, env))


def endpoints(why: str, env: str | None = None) -> tuple[str, ...]:
    """A comma-separated list of addresses; its order means something."""

    def parse(raw: str) -> tuple[str, ...]:
        return tuple(parse_address(item) for item in raw.split(",") if item.strip())

    none: tuple[str, ...] = ()
    return declare(none, Definition(parse, ",".join, "host:port,host:port,...", why, env))
