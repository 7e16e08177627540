import pytest

from relayfile.ingest.providers.provider_time import iso_8601, iso_8601_or_unix, unix_milliseconds, unix_seconds
from relayfile.pinned_json import JsonValue


@pytest.mark.parametrize(
    ("value", "us"),
    [
        ("2019-05-15T15:20:18Z", 1_557_933_618_000_000),
        ("2019-05-15T15:20:18.5Z", 1_557_933_618_500_000),
        ("2021-03-30T19:17:18.000-04:00", 1_617_146_238_000_000),
        ("1970-01-01T00:00:00+00:00", 0),
        (1_557_933_618, 1_557_933_618_000_000),
        ("2015-05-17 18:08:09 UTC", 1_431_886_089_000_000),
        ("2021-04-28 21:50:00 +0200", 1_619_639_400_000_000),
        ("2019-05-15 15:20:18", None),
        ("2019-05-15 15:20:18 CEST", None),
        ("2019-05-15T15:20:18", None),
        ("2019-05-15", None),
        ("1969-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("soon", None),
        ("", None),
        (True, None),
        (None, None),
        ({}, None),
        (10**30, None),
        (-1, None),
    ],
)
def test_iso_8601(value: JsonValue, us: int | None) -> None:
    assert iso_8601(value) == us


@pytest.mark.parametrize(
    ("value", "us"),
    [
        (5, 5_000_000),
        (1.5, 1_500_000),
        ("1355517523.000005", 1_355_517_523_000_005),
        ("1355517523", 1_355_517_523_000_000),
        ("1e9", None),
        ("", None),
        (-1.0, None),
        (1e300, None),
        (False, None),
    ],
)
def test_unix_seconds(value: JsonValue, us: int | None) -> None:
    assert unix_seconds(value) == us


@pytest.mark.parametrize(
    ("value", "us"), [(5, 5_000), ("5", 5_000), ("5.0", None), ("٥", None), (1.5, None), ([], None)]
)
def test_unix_milliseconds(value: JsonValue, us: int | None) -> None:
    assert unix_milliseconds(value) == us


@pytest.mark.parametrize(
    ("value", "us"),
    [
        ("2019-05-15T15:20:18Z", 1_557_933_618_000_000),
        (1_557_933_618, 1_557_933_618_000_000),
        (1_557_933_618_250, 1_557_933_618_250_000),
        (10**30, None),
        ("1557933618", None),
        (None, None),
    ],
)
def test_what_an_unknown_sender_may_write(value: JsonValue, us: int | None) -> None:
    assert iso_8601_or_unix(value) == us
