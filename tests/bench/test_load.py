"""The load is put together by hand: that it says what it means."""

import base64
import hashlib
import hmac
import json

import pytest

from relayfile.ingest.providers.adapter import RequestFacts
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks.signature import SignedRequest, verify
from relayfile.v1 import ingest_pb2
from tests.bench.load_http import GenericRequests, GithubRequests, HttpLoad
from tests.bench.load_publish import BASE_US, PublishLoad, framed, maker
from tests.bench.names import tree_path
from tests.bench.p1b import PAYLOADS
from tests.bench.result import Figure, Result

LOAD = PublishLoad(address="", token="", workspace_prefix="w-", workspaces=4, envelopes=100, objects=8)


def parsed(load: PublishLoad, indexes: list[int]) -> ingest_pb2.PublishEnvelopesRequest:
    make = maker(load)
    return ingest_pb2.PublishEnvelopesRequest.FromString(framed([make(index) for index in indexes], 7))


@pytest.mark.parametrize("shape", ["distinct", "hot", "tree"])
def test_envelopes_are_whole(shape: str) -> None:
    load = PublishLoad(**{**{name: getattr(LOAD, name) for name in LOAD.__slots__}, "shape": shape})
    request = parsed(load, [0, 5, 99])
    assert request.batch_number == 7
    assert [each.workspace_id for each in request.envelopes] == ["w-000", "w-001", "w-003"]
    assert all(len(each.changes[0].content) == 1024 for each in request.envelopes)
    assert all(json.loads(each.changes[0].content)["text"] for each in request.envelopes)
    assert len({each.delivery_id for each in request.envelopes}) == 3


def test_a_hot_object_gets_newer_with_each_round() -> None:
    load = PublishLoad(**{**{name: getattr(LOAD, name) for name in LOAD.__slots__}, "shape": "hot"})
    first, second = (each.changes[0] for each in parsed(load, [3, 11]).envelopes)
    assert first.provider_object_id == second.provider_object_id == "record/0000000003"
    assert (first.occurred_at.seconds, second.occurred_at.seconds) == (BASE_US // 1_000_000, BASE_US // 1_000_000 + 1)
    assert (json.loads(first.content)["version"], json.loads(second.content)["version"]) == ("0000000000", "0000000001")


def test_webhooks_are_signed_and_of_the_size_that_is_said() -> None:
    secret = base64.b64encode(b"k" * 24).decode()
    load = HttpLoad(
        host="h", port=1, workspace_prefix="w-", workspaces=2, secret="whsec_" + secret, seconds=1, presigned=1
    )
    requests = GenericRequests(load)
    for number in (0, 1):
        head, _, body = requests.take().partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        wanted = base64.b64encode(hmac.digest(b"k" * 24, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{wanted}"
        assert len(body) == int(headers["content-length"]) == 1024
        assert json.loads(body)["changes"][0]["path"] == f"/generic/records/{number:010d}.json"


@pytest.mark.parametrize("payloads", ["", str(PAYLOADS) if PAYLOADS.is_dir() else ""])
def test_github_webhooks_are_signed_and_about_objects_of_their_own(payloads: str) -> None:
    load = HttpLoad(
        host="h", port=1, workspace_prefix="w-", workspaces=2, secret="s", seconds=1, shape="github", payloads=payloads
    )
    requests = GithubRequests(load)
    provider = ProviderRegistry.load(1 << 20)["github"]
    sizes, objects, deliveries = [], [], set()
    for _ in range(310):
        head, _, body = requests.take().partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        scheme = provider.scheme_for(headers)
        assert scheme is not None
        verify(scheme, SignedRequest(headers, body), ["s"], 0)
        assert len(body) == int(headers["content-length"])
        sizes.append(len(body))
        deliveries.add(headers["x-github-delivery"])
        (delivery,) = provider.normalise(RequestFacts(headers, body))
        assert not delivery.envelope.HasField("failure"), delivery.envelope.failure
        objects += [change.provider_object_id for change in delivery.envelope.changes]
    assert len(deliveries) == 310
    assert 10_000 < sum(sizes) / len(sizes) < 14_000
    assert len(set(objects)) > 0.9 * len(objects) > 100


def test_tree_paths_are_distinct_and_half_of_them_lie_in_wide_directories() -> None:
    paths = [tree_path(index) for index in range(20_000)]
    assert len(set(paths)) == len(paths)
    wide = [path for path in paths if "/wide-" in path]
    assert len(wide) == len(paths) // 2
    assert len({path.rpartition("/")[0] for path in wide}) == 20
    assert {path.count("/") for path in paths} == {1, 2, 3, 4, 5, 6}


def test_a_missed_bar_is_not_met_and_an_unmeasured_one_is_open() -> None:
    good, bad, unknown = Figure("a", 2, "x", 1), Figure("b", 2, "x", 1, "at most"), Figure("c", None, "x", 1)
    assert Result("P", [good], False).met is True
    assert Result("P", [good, unknown], False).met is None
    assert Result("P", [good, unknown, bad], False).met is False
    assert Result("P", [good], True, scale_only=True).met is None
    assert json.loads(Result("P", [good, bad], False).line())["detail"]["b"]["met"] is False
