"""The settings of targets: what is taken, and what each refusal says."""

import json

import pytest

from relayfile.settings.targets import parse_networks, parse_targets, render_targets

GOOD = {"url": "https://bridge.example/hook", "credential_file": "/run/secrets/x"}


def text(**targets: object) -> str:
    return json.dumps(targets)


def test_what_is_rendered_is_read_again() -> None:
    raw = json.dumps({"linear": {**GOOD, "concurrency_max": 2, "rate_max": 1.5}})
    targets = parse_targets(raw, template=False)
    assert (targets[0].provider, targets[0].concurrency_max, targets[0].rate_max) == ("linear", 2, 1.5)
    assert parse_targets(render_targets(targets), template=False) == targets
    fetch = {"notion/page": {**GOOD, "url": "https://api.example/v1/{type}s/{id}"}}
    targets = parse_targets(json.dumps(fetch), template=True)
    assert (targets[0].provider, targets[0].object_type) == ("notion", "page")
    assert parse_targets(render_targets(targets), template=True) == targets
    assert parse_targets("", template=False) == ()


@pytest.mark.parametrize(
    ("raw", "template", "why"),
    [
        ("{", False, "is not JSON"),
        ("[]", False, "is not a JSON object"),
        ('{"a": 1, "a": 2}', False, "says 'a' twice"),
        (text(Linear=GOOD), False, "does not name a provider"),
        (json.dumps({"notion/page": GOOD}), False, "does not name a provider"),
        (text(linear={"url": "https://x"}), False, "credential_file"),
        (text(linear={**GOOD, "speed": 1}), False, "must say of 'linear'"),
        (text(linear={**GOOD, "url": 1}), False, "other than text"),
        (text(linear={**GOOD, "concurrency_max": 0}), False, "concurrency_max"),
        (text(linear={**GOOD, "concurrency_max": True}), False, "concurrency_max"),
        (text(linear={**GOOD, "rate_max": -1}), False, "rate_max"),
        (text(linear={**GOOD, "url": "ftp://x/y"}), False, "is not https://"),
        (text(linear={**GOOD, "url": "https://me:secret@x/y"}), False, "without a user"),
        (text(linear={**GOOD, "url": "https://x/{id}/{name}"}), True, "a field other than"),
        (text(linear={**GOOD, "url": "https://x/y"}), True, "no {id}"),
        (text(linear={**GOOD, "url": "https://{id}.example/y"}), True, "in the host"),
    ],
)
def test_refusals_name_the_target_and_the_problem(raw: str, template: bool, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_targets(raw, template=template)
    assert why in str(refused.value)


def test_networks() -> None:
    assert [str(each) for each in parse_networks("10.0.0.0/8, fd00::/8,")] == ["10.0.0.0/8", "fd00::/8"]
    with pytest.raises(ValueError, match=r"'10\.0\.0\.1/8'"):
        parse_networks("10.0.0.1/8")
