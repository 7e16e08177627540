"""The table of routes: lookups, its bound, and what makes it what was listed."""

from relayfile.ingest.apps.route_table import RouteTable


def test_routes_are_found_by_app_and_tenant() -> None:
    table = RouteTable(10)
    table.put("a", "1", "acme")
    table.put("b", "1", "bolt")
    table.put("a", "1", "other")
    assert (table.workspace_of("a", "1"), table.workspace_of("b", "1"), table.count) == ("other", "bolt", 2)
    assert table.workspace_of("a", "2") is None
    assert table.workspace_of("c", "1") is None
    table.drop("a", "1")
    table.drop("a", "1")
    table.drop("c", "1")
    assert (table.workspace_of("a", "1"), table.count) == (None, 1)


def test_a_full_table_keeps_what_it_knows_and_counts_the_rest() -> None:
    table = RouteTable(2)
    for tenant in ("1", "2", "3"):
        table.put("a", tenant, "acme")
    table.put("a", "2", "other")
    assert (table.count, table.unknown_count, table.workspace_of("a", "3")) == (2, 1, None)
    assert table.workspace_of("a", "2") == "other"
    table.drop("a", "1")
    table.put("a", "3", "acme")
    assert table.workspace_of("a", "3") == "acme"


def test_differences_are_what_a_listing_changes() -> None:
    table = RouteTable(10)
    for tenant in ("1", "2", "3"):
        table.put("a", tenant, "acme")
    puts, drops = table.differences("a", {"2": "acme", "3": "other", "4": "acme"})
    assert (list(puts), drops) == ([("3", "other"), ("4", "acme")], ["1"])
