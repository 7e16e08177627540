"""docs/grpc.md: both tools are told the same, nothing of the API is forgotten, and the settings are those in force."""

import importlib
import pkgutil

import pytest
from google.protobuf import descriptor_pool

from relayfile import v1
from relayfile.client.recommended import (
    KEEPALIVE_INTERVAL_S,
    KEEPALIVE_TIMEOUT_S,
    MESSAGE_BYTES_MAX,
    service_config,
)
from relayfile.settings import StoreSettings
from tests.support.recipes import PAGE, Recipe, as_shown, blocks, command_of, objects, recipes

SHOWN = recipes()
BY_NOBODY = {"ApplyEnvelopes", "FinishRedo", "SetPause"}
"""What processes of the cluster say to one another."""
LIKE_OTHERS = {
    "ApproveDeletes",
    "ApproveOperations",
    "BatchGetFiles",
    "CancelOperations",
    "ListConflicts",
    "ListMirrors",
    "ListTrash",
    "ReplayOperation",
    "ResolveConflict",
    "RestoreTrash",
    "Scrub",
    "WatchOperations",
    "WatchTopology",
}
"""Asked for as those that are shown beside them."""


@pytest.mark.parametrize("recipe", SHOWN, ids=lambda recipe: recipe.method or "list")
def test_both_tools_ask_for_the_same(recipe: Recipe) -> None:
    assert command_of(recipe.buf) == command_of(recipe.grpcurl)
    if recipe.method:
        assert recipe.answers or recipe.error


def test_every_rpc_is_shown_or_left_out_on_purpose() -> None:
    pool = descriptor_pool.Default()
    every = set()
    for module in pkgutil.iter_modules(v1.__path__, "relayfile.v1."):
        found = importlib.import_module(module.name)
        for name in found.DESCRIPTOR.services_by_name if hasattr(found, "DESCRIPTOR") else ():
            service = pool.FindServiceByName(f"relayfile.v1.{name}")
            every |= {f"{service.full_name}/{method.name}" for method in service.methods}
    shown = {recipe.method for recipe in SHOWN if recipe.method.startswith("relayfile.")}
    assert {name.rpartition("/")[2] for name in every - shown} == BY_NOBODY | LIKE_OTHERS
    assert not shown - every
    assert {name.partition("/")[0] for name in shown} == {name.partition("/")[0] for name in every}


def test_every_body_is_a_message() -> None:
    """With the names of the API: one that is not there would only be found by running it."""
    from google.protobuf import json_format, message_factory

    pool = descriptor_pool.Default()
    for recipe in SHOWN:
        service, _, name = recipe.method.partition("/")
        if not service.startswith("relayfile."):
            continue
        method = pool.FindServiceByName(service).FindMethodByName(name)
        for request in command_of(recipe.buf).requests:
            json_format.ParseDict(request, message_factory.GetMessageClass(method.input_type)())


def test_the_service_config_is_the_file() -> None:
    assert [text.strip() for text in blocks("service-config")] == [service_config().strip()]


def test_the_settings_are_those_of_the_client() -> None:
    page = PAGE.read_text()
    interval, timeout = round(KEEPALIVE_INTERVAL_S), round(KEEPALIVE_TIMEOUT_S)
    assert f"probes every {interval} s" in page
    assert f"every {StoreSettings().keepalive_interval_min_s:g} s is refused" in page
    assert f"Time: {interval} * time.Second, Timeout: {timeout} * time.Second" in page
    assert f"keepAliveTime({interval}, SECONDS)`, `keepAliveTimeout({timeout}, SECONDS)" in page
    assert f"'grpc.keepalive_time_ms': {interval}000`, `'grpc.keepalive_timeout_ms': {timeout}000`" in page
    assert page.count(str(MESSAGE_BYTES_MAX)) == 3


def test_what_is_shown_is_looked_for() -> None:
    bound: dict[str, str] = {}
    came = {"a": {"id": "1", "list": [{"b": "2"}]}, "c": "3"}
    assert as_shown({"a": {"id": "$ID", "list": [{"b": "…"}]}}, came, bound)
    assert bound == {"ID": "1"}
    assert not as_shown({"c": "$ID"}, came, bound)
    assert not as_shown({"a": {"list": []}}, came, bound)
    assert not as_shown({"d": "…"}, came, bound)
    assert list(objects('{"a": 1}\n{"b": 2} {"c": ')) == [{"a": 1}, {"b": 2}]
