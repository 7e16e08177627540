"""Routes in the spool's file: there after a restart, whole, and no burden for older files."""

from pathlib import Path

import apsw

from relayfile.ingest.spool.spool_file import FILE_NAME
from relayfile.ingest.spool.spool_routes import RoutesAt, RouteUpdate
from tests.unit.ingest.spool.test_spool import append, envelope, opened


async def test_routes_are_there_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        assert one.reader.routes("crm") == ({}, None)
        await one.spool.add_routes(RouteUpdate("crm", [("1", "acme"), ("2", "bolt")], [], RoutesAt(2, "h")))
        await one.spool.add_routes(RouteUpdate("gh", [("1", "other")], [], RoutesAt(1, "i")))
        await one.spool.add_routes(RouteUpdate("crm", [("2", "acme"), ("3", "acme")], ["1"], RoutesAt(5, "h")))
    async with opened(tmp_path) as two:
        assert two.reader.routes("crm") == ({"2": "acme", "3": "acme"}, RoutesAt(5, "h"))
        assert two.reader.routes("gh") == ({"1": "other"}, RoutesAt(1, "i"))


async def test_a_part_of_a_list_has_no_position(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        await one.spool.add_routes(RouteUpdate("crm", [("1", "acme")], [], RoutesAt(1, "h")))
        await one.spool.add_routes(RouteUpdate("crm", [("2", "acme")], [], None))
        assert one.reader.routes("crm") == ({"1": "acme", "2": "acme"}, None)


async def test_routes_cost_no_fsync(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        await one.spool.add_routes(RouteUpdate("crm", [("1", "acme")], [], RoutesAt(1, "h")))
        assert (one.spool.counters.transactions, one.spool.counters.fsyncs) == (1, 0)
        await append(one.spool, [envelope(1)])
        assert one.spool.counters.fsyncs == 1


async def test_a_file_of_an_earlier_release_gets_the_tables(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        await append(one.spool, [envelope(1)])
    connection = apsw.Connection(str(tmp_path / FILE_NAME))
    connection.execute("DROP TABLE app_route; DROP TABLE app_routes_at")
    connection.close()
    async with opened(tmp_path) as two:
        assert len(list(two.reader.remainders())) == 1
        assert two.reader.routes("crm") == ({}, None)
