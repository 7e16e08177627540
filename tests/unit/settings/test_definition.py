import pytest

from relayfile.settings.definition import parse_address, parse_duration, parse_size, render_duration, render_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("3s", 3.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("7d", 604800.0),
        ("0", 0.0),
        ("1.5s", 1.5),
        (" 3 s ", 3),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["3", "", "s", "-1s", "3 sec", "3S", "1m30s", "nan", "infs", "1e3s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("1024", 1024), ("16MiB", 16 << 20), ("1.5KiB", 1536), ("7B", 7)]
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "1MB", "1mib", "-1", "1 000"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["250ms", "3s", "2m", "1h", "7d", "90s", "2500ms", "0s", "150us"])
def test_a_rendered_duration_reads_back(text: str) -> None:
    assert parse_duration(render_duration(parse_duration(text))) == pytest.approx(parse_duration(text))


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1 << 20, (1 << 20) + 1, 26 << 20, 1 << 40])
def test_a_rendered_size_reads_back(count: int) -> None:
    assert parse_size(render_size(count)) == count


@pytest.mark.parametrize("address", ["127.0.0.1:0", "store-0.store:7420", "[::1]:7420", "unix:/run/relayfile.sock"])
def test_addresses(address: str) -> None:
    assert parse_address(f" {address} ") == address


@pytest.mark.parametrize("address", ["", "host", ":80", "host:", "host:x", "host:65536", "::1:80", "unix:", "host:٣"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_address(address)
