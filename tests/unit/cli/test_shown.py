"""The one form in which commands show messages and times."""

import json

from relayfile.cli.shown import as_json, moment
from relayfile.v1 import route_pb2


def test_a_message_is_one_line_with_the_names_of_the_api() -> None:
    route = route_pb2.Route(workspace_id="acme", tenant="zürich")
    assert as_json(route) == '{"tenant": "zürich", "workspace_id": "acme"}'
    assert json.loads(as_json(route, zeros=True))["app"] == ""


def test_a_time_is_in_utc() -> None:
    assert moment(1_767_225_600_999_999) == "2026-01-01 00:00:00Z"
