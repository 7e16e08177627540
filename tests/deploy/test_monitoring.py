"""Alerts and dashboards: each metric that they read is exported, each alert has a runbook; Prometheus takes them."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from relayfile.cli import app
from relayfile.telemetry.catalogue import catalogue
from tests.support.manifests import of_kind, one, rendered
from tests.support.promql import Selector, grouped_by, selectors

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
RULES = PROMETHEUS / "relayfile.rules.yaml"
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
SERIES = {series: metric for metric in catalogue() for series in metric.series}
NOT_OURS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"}
"""What Prometheus and its client tell of every process."""
OF_THE_SCRAPE = {"instance", "job", "le", "namespace"}
RULE_LIST = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
RECORDED = {rule["record"] for rule in RULE_LIST if "record" in rule}
ALERTS = [rule for rule in RULE_LIST if "alert" in rule]


def panels(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """(where, expression) of everything that is asked."""
    for rule in RULE_LIST:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for file in DASHBOARDS:
        for panel in panels(file):
            for target in panel["targets"]:
                yield f"{file.name}: {panel['title']}", target["expr"]


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_what_is_asked_is_exported(where: str, expression: str) -> None:
    read = selectors(expression)
    assert read, where
    for metric, labels in read:
        if metric in NOT_OURS | RECORDED:
            continue
        assert metric in SERIES, f"{where} reads {metric}, which no process exports"
        assert labels <= set(SERIES[metric].labels) | OF_THE_SCRAPE, (where, metric, labels)
        if SERIES[metric].kind != "gauge":
            assert re.search(rf"\b(rate|increase)\({metric}\b", expression), f"{where}: {metric} only grows"
    known = {label for metric, _ in read if metric in SERIES for label in SERIES[metric].labels}
    assert grouped_by(expression) <= known | OF_THE_SCRAPE, where


def test_every_metric_is_looked_at_somewhere() -> None:
    read = {metric for _, expression in EXPRESSIONS for metric, _ in selectors(expression)}
    assert [each.name for each in catalogue() if not read & set(each.series)] == []


def test_the_dashboards_are_whole() -> None:
    assert [file.stem for file in DASHBOARDS] == ["ingest", "mirrors", "overview", "store"]
    for file in DASHBOARDS:
        dashboard = json.loads(file.read_text())
        assert dashboard["uid"] == f"relayfile-{file.stem}"
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
            assert not cells & taken, f"{file.name}: {panel['title']} covers another panel"
            assert max(x for x, _ in cells) < 24
            taken |= cells
        assert len({panel["title"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
        asked = dashboard["templating"]["list"][1]["query"]["query"]
        assert asked.split("(")[1].split(",")[0] in SERIES


def runbooks() -> dict[str, str]:
    """Alert to its section."""
    sections = re.split(r"^## ", (ROOT / "docs/runbooks.md").read_text(), flags=re.MULTILINE)[1:]
    return {section.partition("\n")[0]: section for section in sections}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    sections = runbooks()
    assert [alert["alert"] for alert in ALERTS if alert["alert"] not in sections] == []
    assert set(sections) == {alert["alert"] for alert in ALERTS}
    for alert in ALERTS:
        assert set(alert["labels"]) == {"severity"}
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{alert['alert'].lower()}"
        assert alert["annotations"]["summary"].strip()
        for part in ("**Means.**", "**Look.**", "**Do.**"):
            assert part in sections[alert["alert"]], (alert["alert"], part)


def test_the_operator_is_given_the_same_rules() -> None:
    for overlay in ("production", "stateless-ingest"):
        found = one(rendered(f"overlays/{overlay}"), "PrometheusRule", "relayfile")
        assert found["spec"] == yaml.safe_load(RULES.read_text())


def test_severities_are_the_three_that_are_documented() -> None:
    shipped = [
        rule
        for each in of_kind(rendered("overlays/production"), "PrometheusRule")
        for group in each["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert {"RelayfileSpoolOrphaned", "RelayfileNodeUnreachable"} <= {rule["alert"] for rule in shipped}
    [said] = re.findall(r"`severity` is (.*?)\.", (ROOT / "docs/monitoring.md").read_text())
    assert re.findall(r"`(\w+)`", said) == ["page", "ticket", "note"]
    assert {rule["labels"]["severity"] for rule in shipped} == {"page", "ticket", "note"}


@pytest.mark.parametrize("page", ["runbooks", "monitoring", "tracing"])
def test_what_the_pages_name_exists(page: str) -> None:
    text = (ROOT / f"docs/{page}.md").read_text()
    words = set(re.findall(r"\brelayfile_[a-z_]+[a-z]\b", text))
    assert words <= set(SERIES) | {each.name for each in catalogue()}, words
    variables = set(re.findall(r"\bRELAYFILE_[A-Z_]+", text))
    configuration = (ROOT / "docs/configuration.md").read_text()
    assert [name for name in variables if f"`{name}`" not in configuration] == []
    for link, anchor in re.findall(r"\]\(([\w.-]*\.md)?#([\w-]+)\)", text):
        headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / (link or f"{page}.md")).read_text(), re.MULTILINE)
        known = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
        assert anchor in known, f"docs/{page}.md leads to {link}#{anchor}"


def test_the_commands_of_the_runbooks_exist() -> None:
    for said in re.findall(r"`relayfile ([a-z][a-z -]*)", (ROOT / "docs/runbooks.md").read_text()):
        command: Any = get_command(app)
        words = said.split()
        while words and hasattr(command, "commands"):
            name = words.pop(0)
            assert name in command.commands, said
            command = command.commands[name]


def test_promql_is_read_as_it_is_meant() -> None:
    read = selectors(
        'sum by (a, le) (rate(x_bucket{b=~"y{z}",c!="d"}[5m])) / on () group_left () count(y) > 1e9 and (z:r offset 1h)'
    )
    assert read == [
        Selector("x_bucket", frozenset("bc")), Selector("y", frozenset()), Selector("z:r", frozenset())
    ]  # fmt: skip
    assert grouped_by("sum by (a, le) (x)") == {"a", "le"}
    with pytest.raises(ValueError, match="brackets"):
        selectors("rate(x[5m)")


@pytest.mark.needs_promtool
def test_prometheus_takes_the_rules_and_they_do_what_their_tests_say() -> None:
    promtool("check", "rules", str(RULES))
    promtool("test", "rules", str(PROMETHEUS / "relayfile.tests.yaml"))


@pytest.mark.needs_promtool
def test_prometheus_takes_what_the_dashboards_ask(tmp_path: Path) -> None:
    asked = [target["expr"] for file in DASHBOARDS for panel in panels(file) for target in panel["targets"]]
    rules = [
        {"record": f"asked:{number}", "expr": expr.replace("$__rate_interval", "5m").replace("$instance", ".*")}
        for number, expr in enumerate(asked)
    ]
    file = tmp_path / "asked.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    promtool("check", "rules", str(file))


def promtool(*arguments: str) -> None:
    ended = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
