from dataclasses import replace

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks.signature import Scheme, SignatureRefused, SignedRequest, sign, verify

NOW_US = 1_614_265_330_000_000
NOW = "1614265330"
PROVIDERS = ProviderRegistry.load(1000)


def scheme_of(provider: str) -> Scheme:
    scheme = PROVIDERS[provider].scheme
    assert scheme is not None
    return scheme


GITHUB = scheme_of("github")
STANDARD = scheme_of("generic")
STRIPE = Scheme(
    header="stripe-signature", prefix="v1=", separator=",", timestamp_prefix="t=", signed=("timestamp", b".", "body")
)
SLACK = Scheme(
    header="x-slack-signature", prefix="v0=", timestamp_header="ts", signed=(b"v0:", "timestamp", b":", "body")
)
HUBSPOT = Scheme(
    header="s",
    encoding="base64",
    timestamp_header="ts",
    timestamp_unit_s=0.001,
    signed=("method", "url", "body", "timestamp"),
)
SHOPIFY = Scheme(header="s", encoding="base64")
INTERCOM = Scheme(header="s", prefix="sha1=", algorithm="sha1")
LINEAR = Scheme(header="linear-signature")
GITLAB = Scheme(header="x-gitlab-token", is_token=True)


def refusal(scheme: Scheme, request: SignedRequest, *secrets: str, now_us: int = NOW_US) -> str:
    try:
        verify(scheme, request, secrets, now_us)
    except SignatureRefused as refused:
        return refused.reason
    return ""


def test_the_example_of_github() -> None:
    # docs.github.com, Validating webhook deliveries, "Testing the webhook payload validation".
    header = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    request = SignedRequest({"x-hub-signature-256": header}, b"Hello, World!")
    assert refusal(GITHUB, request, "It's a Secret to Everybody") == ""
    assert refusal(GITHUB, request, "another secret") == "SIGNATURE_MISMATCH"


def test_the_example_of_standard_webhooks() -> None:
    # The test vector of the reference libraries of standard-webhooks.
    request = SignedRequest(
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
    )
    assert refusal(STANDARD, request, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") == ""
    assert refusal(STANDARD, request, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") == ""
    assert refusal(STANDARD, request, "whsec_AAAA") == "SIGNATURE_MISMATCH"


@pytest.mark.parametrize("scheme", [GITHUB, STANDARD, STRIPE, SLACK, HUBSPOT, SHOPIFY, INTERCOM, LINEAR])
def test_every_way_of_signing(scheme: Scheme) -> None:
    time = "1614265330000" if scheme.timestamp_unit_s < 1 else NOW
    headers = {"webhook-id": "m", scheme.timestamp_header: time}
    request = SignedRequest(headers, b"body", "POST", "https://example.com/hook")
    signed = request._replace(headers={**headers, scheme.header: sign(scheme, request, "secret", time)})
    assert refusal(scheme, signed, "secret") == ""
    assert refusal(scheme, signed, "old", "secret") == ""
    assert refusal(scheme, signed) == "SECRET_MISSING"
    assert refusal(scheme, signed, "other") == "SIGNATURE_MISMATCH"
    assert refusal(scheme, signed._replace(body=b"Body"), "secret") == "SIGNATURE_MISMATCH"
    assert refusal(scheme, request, "secret") == "SIGNATURE_MISSING"
    if scheme.is_timed:
        late, early = NOW_US + 300_000_000, NOW_US - 300_000_000
        assert refusal(scheme, signed, "secret", now_us=late) == refusal(scheme, signed, "secret", now_us=early) == ""
        assert refusal(scheme, signed, "secret", now_us=late + 1) == "TIMESTAMP_STALE"
        assert refusal(scheme, signed, "secret", now_us=early - 1) == "TIMESTAMP_STALE"


def test_the_tighter_window_counts() -> None:
    headers = {"webhook-id": "m", "webhook-timestamp": NOW}
    headers["webhook-signature"] = sign(STANDARD, SignedRequest(headers, b"x"), "s", NOW)
    request, later_us = SignedRequest(headers, b"x"), NOW_US + 60_000_000
    verify(STANDARD, request, ["s"], later_us, tolerance_s=60)
    verify(replace(STANDARD, tolerance_s=600), request, ["s"], later_us, tolerance_s=60)
    for scheme, tolerance_s in ((STANDARD, 59), (replace(STANDARD, tolerance_s=59), 600)):
        with pytest.raises(SignatureRefused, match="TIMESTAMP_STALE"):
            verify(scheme, request, ["s"], later_us, tolerance_s=tolerance_s)


def test_a_token() -> None:
    assert refusal(GITLAB, SignedRequest({"x-gitlab-token": "t"}, b""), "s", "t") == ""
    assert refusal(GITLAB, SignedRequest({"x-gitlab-token": "T"}, b""), "t") == "SIGNATURE_MISMATCH"
    assert refusal(GITLAB, SignedRequest({}, b""), "t") == "SIGNATURE_MISSING"


def test_several_signatures_of_one_header() -> None:
    request = SignedRequest({"webhook-id": "m", "webhook-timestamp": NOW}, b"x")
    good = sign(STANDARD, request, "secret", NOW)
    for header in (f"v1a,xx {good}", f"{good} v1,AAAA", f"v1,{'A' * 43}= {good}"):
        assert (
            refusal(STANDARD, request._replace(headers={**request.headers, "webhook-signature": header}), "secret")
            == ""
        )


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("nonsense", "SIGNATURE_MALFORMED"),
        ("sha256=", "SIGNATURE_MALFORMED"),
        ("sha256=zz", "SIGNATURE_MALFORMED"),
        ("sha256=00", "SIGNATURE_MALFORMED"),
        ("sha1=" + "0" * 40, "SIGNATURE_MALFORMED"),
        ("sha256=" + "0" * 64, "SIGNATURE_MISMATCH"),
        ("x" * 5000, "SIGNATURE_MALFORMED"),
        ("sha256=é", "SIGNATURE_MALFORMED"),
    ],
)
def test_malformed_headers(header: str, reason: str) -> None:
    assert refusal(GITHUB, SignedRequest({"x-hub-signature-256": header}, b"x"), "s") == reason


@pytest.mark.parametrize("time", ["soon", "-1", "1e9", "9" * 40, "1.5"])
def test_malformed_times(time: str) -> None:
    headers = {"webhook-id": "m", "webhook-timestamp": time, "webhook-signature": "v1," + "A" * 43 + "="}
    assert refusal(STANDARD, SignedRequest(headers, b"x"), "s") == "TIMESTAMP_MALFORMED"
    headers["webhook-timestamp"] = ""
    assert refusal(STANDARD, SignedRequest(headers, b"x"), "s") == "TIMESTAMP_MISSING"
