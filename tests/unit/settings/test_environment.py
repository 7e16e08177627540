import dataclasses
from pathlib import Path

import pytest

from relayfile.errors import SettingError
from relayfile.settings import (
    ClientSettings,
    IngestSettings,
    ProviderSecrets,
    StoreSettings,
    SyncdSettings,
    describe,
    load,
)
from relayfile.settings.environment import _KUBERNETES_LINK, GROUPS, definitions


def test_defaults_are_the_documented_ones() -> None:
    ingest = load(IngestSettings, {})
    assert (ingest.envelope_workers, ingest.envelope_queue_size, ingest.coalesce_window_s) == (64, 262_144, 3.0)
    assert ingest.body_bytes_max == 26 << 20
    store = load(StoreSettings, {})
    assert (store.shard_count, store.content_bytes_max, store.delivery_retention_s) == (256, 16 << 20, 7 * 86400)
    syncd = load(SyncdSettings, {})
    assert (syncd.sync_read_concurrency, syncd.mount_interval_s, syncd.mount_audit_every) == (16, 30.0, 10)


def test_the_environment_is_read_and_options_win() -> None:
    environ = {"RELAYFILE_ENVELOPE_WORKERS": "7", "RELAYFILE_COALESCE_WINDOW": "250ms", "HOME": "/root", "PATH": ""}
    settings = load(IngestSettings, environ, {"RELAYFILE_ENVELOPE_WORKERS": "9"})
    assert (settings.envelope_workers, settings.coalesce_window_s) == (9, 0.25)


def test_settings_are_frozen() -> None:
    settings = load(StoreSettings, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.shard_count = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "phrase"),
    [
        ("RELAYFILE_ENVELOPE_WORKERS", "many", "'many'.*whole number.*1 to 4096"),
        ("RELAYFILE_ENVELOPE_WORKERS", "0", "out of range.*1 to 4096"),
        ("RELAYFILE_COALESCE_WINDOW", "3", "not a duration with a unit.*0s to 10m"),
        ("RELAYFILE_COALESCE_WINDOW", "1h", "out of range"),
        ("RELAYFILE_SPOOL_BYTES_MAX", "4GB", "not a size"),
        ("RELAYFILE_SPOOL_MODE", "tape", "disk or through"),
        ("RELAYFILE_SPOOL_VERIFY", "maybe", "neither on nor off"),
        ("RELAYFILE_TRACE_SAMPLE_RATIO", "1.5", "0 to 1"),
        ("RELAYFILE_INGEST_HTTP_ADDRESS", "nowhere", "not an address"),
        ("RELAYFILE_NODES", "a:1,b", "not an address"),
        ("RELAYFILE_DATA_DIR", "", "is empty"),
        ("RELAYFILE_WEBHOOK_SECRETS", "{", "not JSON"),
    ],
)
def test_a_bad_value_names_the_variable_its_problem_and_the_way_out(name: str, value: str, phrase: str) -> None:
    with pytest.raises(SettingError, match=f"^{name} .*{phrase}") as caught:
        load(IngestSettings, {name: value})
    assert "\n" not in str(caught.value)


def test_a_typo_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingError, match=r"RELAYFILE_COALESE_WINDOW is no setting.*RELAYFILE_COALESCE_WINDOW"):
        load(StoreSettings, {"RELAYFILE_COALESE_WINDOW": "3s"})
    with pytest.raises(SettingError, match="relayfile config"):
        load(StoreSettings, {"RELAYFILE_XQ": "3s"})


def test_settings_of_other_processes_and_of_tests_are_passed_over() -> None:
    load(StoreSettings, {"RELAYFILE_MOUNT_INTERVAL": "1s", "RELAYFILE_TEST_STRICT": "1", "RELAYFILE_TOKEN": "t"})


def test_what_kubernetes_adds_for_a_service_is_passed_over() -> None:
    names = ["_SERVICE_HOST", "_SERVICE_PORT", "_SERVICE_PORT_GRPC", "_PORT", "_PORT_7420_TCP", "_PORT_7420_TCP_ADDR"]
    load(StoreSettings, {"RELAYFILE_STORE" + name: "tcp://10.0.0.1:7420" for name in names})
    ours = [env for group in GROUPS.values() for _, env, _ in definitions(group)]
    assert [env for env in ours if _KUBERNETES_LINK.search(env)] == []


def test_rules_between_settings() -> None:
    nodes = {"RELAYFILE_NODES": "a:1,b:2"}
    assert load(StoreSettings, {**nodes, "RELAYFILE_NODE_INDEX": "1"}).public_address == "b:2"
    with pytest.raises(SettingError, match="NODE_INDEX is 2, but RELAYFILE_NODES has 2 entries"):
        load(StoreSettings, {**nodes, "RELAYFILE_NODE_INDEX": "2"})


def test_webhook_secrets() -> None:
    raw = '{"acme/github": ["new", "old"], "b/linear": "one"}'
    settings = load(IngestSettings, {"RELAYFILE_WEBHOOK_SECRETS": raw})
    assert settings.webhook_secrets == (
        ProviderSecrets("acme", "github", ("new", "old")),
        ProviderSecrets("b", "linear", ("one",)),
    )
    assert "new" not in repr(settings.webhook_secrets)


@pytest.mark.parametrize(
    "raw",
    [
        '["s3cret"]',
        '{"acme": ["s3cret"]}',
        '{"a/b/c": ["s3cret"]}',
        '{"a/b": []}',
        '{"a/b": ["s3cret", 1]}',
        '{"a/b": 5}',
    ],
)
def test_bad_webhook_secrets_are_refused_without_repeating_them(raw: str) -> None:
    with pytest.raises(SettingError, match=r"RELAYFILE_WEBHOOK_SECRETS has|RELAYFILE_WEBHOOK_SECRETS is") as caught:
        load(IngestSettings, {"RELAYFILE_WEBHOOK_SECRETS": raw})
    assert "s3cret" not in str(caught.value)


def test_what_is_rendered_reads_back_as_the_same_value() -> None:
    environ = {
        "RELAYFILE_NODES": "a:1,b:2",
        "RELAYFILE_COALESCE_WINDOW": "150ms",
        "RELAYFILE_COALESCE_LEADING": "off",
        "RELAYFILE_SPOOL_VERIFY": "off",
        "RELAYFILE_SPOOL_BYTES_MAX": "3000001",
        "RELAYFILE_WEBHOOK_SECRETS": '{"acme/github": ["s"]}',
    }
    settings = load(IngestSettings, environ)
    rendered = {env: each.render(getattr(settings, name)) for name, env, each in definitions(IngestSettings)}
    assert load(IngestSettings, {env: text for env, text in rendered.items() if text}) == settings


def test_describe_says_value_and_source_and_masks_secrets() -> None:
    rows = {
        row.name: row
        for row in describe(
            {
                "RELAYFILE_SHARD_COUNT": "16",
                "RELAYFILE_TOKEN": "very-secret",
                "RELAYFILE_WEBHOOK_SECRETS": '{"a/b":["x1"]}',
            },
            {"RELAYFILE_DATA_DIR": "/data"},
        )
    }
    assert (rows["RELAYFILE_SHARD_COUNT"].value, rows["RELAYFILE_SHARD_COUNT"].source) == ("16", "environment")
    assert (rows["RELAYFILE_DATA_DIR"].value, rows["RELAYFILE_DATA_DIR"].source) == ("/data", "option")
    assert (rows["RELAYFILE_COALESCE_WINDOW"].value, rows["RELAYFILE_COALESCE_WINDOW"].source) == ("3s", "default")
    assert rows["RELAYFILE_DATA_DIR"].used_by == ("store", "ingest", "syncd")
    assert "very-secret" not in repr(rows)
    assert "x1" not in repr(rows)


@pytest.mark.parametrize("group", GROUPS.values())
def test_every_default_is_in_its_own_range_and_explained(group: type[ClientSettings]) -> None:
    for attribute, env, definition in definitions(group):
        default = next(field.default for field in dataclasses.fields(group) if field.name == attribute)
        rendered = definition.render(default)
        if rendered or not isinstance(default, Path):
            assert definition.parse(rendered) == default, env
        assert definition.why, env
        assert definition.range, env
