"""Paths of routes: every tenant has one, they sort as tenants do, and nothing else is taken for a route."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayfile.paths import SEGMENT_BYTES_MAX, check_write_path
from relayfile.pinned_json import NotJson
from relayfile.route_file import (
    RouteFile,
    check_app,
    check_tenant,
    read_route,
    route_path,
    tenant_of,
    write_route,
)

TENANTS = st.text(min_size=1, max_size=256).filter(lambda text: check_tenant(text) is None)


@given(TENANTS, TENANTS)
def test_paths_sort_as_tenants_and_lead_back(one: str, other: str) -> None:
    assert (route_path(one) < route_path(other)) is (one < other)
    for tenant in (one, other):
        path = route_path(tenant)
        assert check_write_path(path) is None
        assert len(path) <= SEGMENT_BYTES_MAX
        assert tenant_of(path) == tenant


@pytest.mark.parametrize(
    "path", ["/routes/zz.json", "/routes/61.txt", "/routes/6A.json", "/x/61.json", "/routes/c3.json"]
)
def test_other_files_are_no_routes(path: str) -> None:
    assert tenant_of(path) is None


@given(TENANTS, st.integers(0, 2**53))
def test_content_leads_back(tenant: str, created_us: int) -> None:
    route = RouteFile(tenant, "acme", created_us)
    assert read_route(write_route(route)) == route


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"tenant":"t"}', b'{"tenant":1,"workspace_id":"w","created_unix_us":2}']
)
def test_other_contents_are_refused(content: bytes) -> None:
    with pytest.raises(NotJson):
        read_route(content)


@pytest.mark.parametrize(
    ("tenant", "fine"), [("", False), ("é" * 128, True), ("é" * 129, False), ("a\x7f", False), (" ", True)]
)
def test_tenants(tenant: str, fine: bool) -> None:
    assert (check_tenant(tenant) is None) is fine


@pytest.mark.parametrize(
    ("app", "fine"), [("", False), ("a" * 64, True), ("a" * 65, False), ("A", False), ("-1", True)]
)
def test_apps(app: str, fine: bool) -> None:
    assert (check_app(app) is None) is fine
