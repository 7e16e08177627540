"""Every setting there is: typed, frozen, with its default, range and meaning in one table (D15).

The table drives reading the environment, ``relayfile config`` and docs/configuration.md. Nothing else reads the
environment. A small table of our own instead of pydantic-settings: that costs 0.2 s at every start of the command line,
and would still need ranges, units, sources and documentation beside it.
"""

from relayfile.settings.apps import AppDefinition
from relayfile.settings.environment import Row, Settings, child_environment, describe, load
from relayfile.settings.groups import ClientSettings, ClusterSettings, CommonSettings, TlsSettings
from relayfile.settings.ingest import IngestSettings, ProviderSecrets
from relayfile.settings.store import StoreSettings
from relayfile.settings.syncd import SyncdSettings

__all__ = [
    "AppDefinition",
    "ClientSettings",
    "TlsSettings",
    "ClusterSettings",
    "CommonSettings",
    "IngestSettings",
    "ProviderSecrets",
    "Row",
    "Settings",
    "StoreSettings",
    "SyncdSettings",
    "child_environment",
    "describe",
    "load",
]
