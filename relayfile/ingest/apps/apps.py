"""The apps of this process: which provider signs for each, and which customer a delivery is of.

Owns the configuration of apps and the rule of what counts as a tenant. Refuses to start with an app that no delivery
could be matched with, and to know where a tenant's files go.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from relayfile.errors import SettingError
from relayfile.ingest.providers.adapter import Provider
from relayfile.ingest.providers.definition import BodyForm
from relayfile.ingest.providers.expression import Expression, ExpressionError, compile_expression
from relayfile.pinned_json import JsonValue
from relayfile.placement import app_workspace
from relayfile.route_file import check_tenant
from relayfile.settings import AppDefinition

_SETTING = "RELAYFILE_APPS"
_IN_HEADER = "header:"


@dataclass(frozen=True, slots=True)
class App:
    """One app."""

    name: str
    provider: str
    tenant: Expression | None
    """Finds the customer in an event."""
    tenant_header: str = ""
    """Names the customer instead, in lower case; one of the provider's kept headers."""

    @property
    def workspace(self) -> str:
        """Its system workspace: where its secrets, its routes and what has no route are."""
        return app_workspace(self.name)

    def tenant_of(self, document: JsonValue, headers: Mapping[str, str]) -> str:
        """The customer that an event is of: a text or a whole number; empty when it names none that can be one.

        ``headers`` are the kept ones, which a dead letter has too.
        """
        found = self.tenant(document) if self.tenant is not None else headers.get(self.tenant_header)
        tenant = str(found) if type(found) is int else found
        return tenant if isinstance(tenant, str) and check_tenant(tenant) is None else ""


class Apps(Mapping[str, App]):
    """Apps by name. Immutable after loading."""

    def __init__(self, apps: Sequence[App] = ()) -> None:
        self._apps = {app.name: app for app in apps}

    @classmethod
    def load(cls, definitions: Sequence[AppDefinition], providers: Mapping[str, Provider]) -> "Apps":
        """Compile what is configured. `SettingError` names the app and what is wrong with it."""
        return cls([_load(definition, providers) for definition in definitions])

    def __getitem__(self, name: str) -> App:
        return self._apps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._apps)

    def __len__(self) -> int:
        return len(self._apps)


def _with_events(providers: Mapping[str, Provider]) -> list[str]:
    return [name for name, provider in providers.items() if provider.definition.form is BodyForm.EVENT]


def _load(definition: AppDefinition, providers: Mapping[str, Provider]) -> App:
    provider = providers.get(definition.provider)
    if provider is None or provider.definition.form is BodyForm.ENVELOPE:
        raise SettingError(
            variable=_SETTING,
            problem=f"names the provider {definition.provider!r} for the app {definition.name!r}, and it has no events",
            way_out=f"name one of {', '.join(sorted(_with_events(providers)))}",
        )
    if definition.tenant.startswith(_IN_HEADER):
        header = definition.tenant.removeprefix(_IN_HEADER).strip().lower()
        if header not in provider.definition.delivery.kept_headers:
            raise SettingError(
                variable=_SETTING,
                problem=f"finds the tenant of the app {definition.name!r} in a header that its provider does not keep",
                way_out=f"name one of {', '.join(provider.definition.delivery.kept_headers)}",
            )
        return App(definition.name, definition.provider, None, header)
    try:
        tenant = compile_expression(definition.tenant)
    except ExpressionError as error:
        raise SettingError(
            variable=_SETTING,
            problem=f"has a tenant expression for the app {definition.name!r} that {error}",
            way_out="write fields like installation.id, as provider files do",
        ) from None
    return App(definition.name, definition.provider, tenant)
