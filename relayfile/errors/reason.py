"""What every reason has: a message from its docstring, metadata for programs, and the way back from a peer's answer.

Refuses to know any reason, and any transport.
"""

from collections.abc import Mapping
from dataclasses import Field
from typing import ClassVar, Self


class RelayfileError(Exception):
    """The operation failed."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(self._message() if message is None else message)

    def __post_init__(self) -> None:
        RelayfileError.__init__(self)

    def metadata(self) -> dict[str, str]:
        """What a program needs to react: field name to value as text. Never secrets, never content."""
        return {name: str(getattr(self, name)) for name in self._field_types()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """The error that a peer described with ``metadata``; fields that are absent or unreadable are empty or zero."""
        values: dict[str, str | int | float] = {}
        for name, kind in cls._field_types().items():
            try:
                values[name] = kind(metadata.get(name, kind()))
            except ValueError:
                values[name] = kind()
        return cls(**values)  # type: ignore[arg-type]  # a dataclass's keyword fields, read from its own declaration

    @classmethod
    def _field_types(cls) -> dict[str, type[str] | type[int] | type[float]]:
        declared: Mapping[str, Field[object]] = getattr(cls, "__dataclass_fields__", {})
        kinds: dict[object, type[str | int | float]] = {str: str, int: int, float: float}
        return {name: kinds[field.type] for name, field in declared.items() if field.type != ClassVar[str]}

    @classmethod
    def metadata_keys(cls) -> tuple[str, ...]:
        """The keys of ``metadata()``, in order."""
        return tuple(cls._field_types())

    @classmethod
    def template(cls) -> str:
        """The message with the fields' names in braces: the first paragraph of the docstring."""
        return " ".join((cls.__doc__ or cls.reason).split("\n\n")[0].split())

    def _message(self) -> str:
        template = self.template()
        values = {name: getattr(self, name) for name in self._field_types()}
        return template.format_map(values) if values else template
