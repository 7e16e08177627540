"""GetConfig: the settings of this node as messages. Secrets are not shown."""

from collections.abc import Iterable

from relayfile.settings import Row
from relayfile.v1 import admin_pb2

_SOURCES = {
    "default": admin_pb2.SETTING_SOURCE_DEFAULT,
    "environment": admin_pb2.SETTING_SOURCE_ENVIRONMENT,
    "file": admin_pb2.SETTING_SOURCE_FILE,
    "option": admin_pb2.SETTING_SOURCE_OPTION,
}


def fill_config(into: admin_pb2.GetConfigResponse, rows: Iterable[Row], name_prefix: str) -> None:
    """The settings of a store node whose names start with the prefix, by name."""
    for row in sorted(rows, key=lambda row: row.name):
        if "store" not in row.used_by or not row.name.startswith(name_prefix):
            continue
        into.settings.add(
            name=row.name,
            value="" if row.is_secret else row.value,
            default_value=row.default,
            range=row.range,
            meaning=row.meaning,
            source=_SOURCES.get(row.source, admin_pb2.SETTING_SOURCE_UNSPECIFIED),
            secret=row.is_secret,
        )
