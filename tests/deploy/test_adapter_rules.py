"""What the metrics adapter would ask Prometheus: of a pod that tells nothing there is no number, and no zero."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.manifests import KUBERNETES

RULES = {
    rule["name"]["as"]: rule["metricsQuery"]
    .replace("<<.Series>>", rule["seriesQuery"].partition("{")[0])
    .replace("<<.LabelMatchers>>", 'namespace="relayfile"')
    .replace("<<.GroupBy>>", "pod")
    for rule in yaml.safe_load((KUBERNETES / "components/metrics-adapter/rules.yaml").read_text())["rules"]
}
PODS = {
    # Every minute: (answered so far, age of what could be sent).
    "busy": ("0+6000x10", "12x10"),
    "idle": ("7x10", "0x10"),
    "gone": ("0+6000x3 stale", "12x3 stale"),
    "scraped-once": ("_x9 5", "_x9 3"),
    "unknown": ("_x10", " ".join(["NaN"] * 11)),
}
REQUESTS = {"busy": 100, "idle": 0}
AGES = {"busy": 12, "idle": 0, "scraped-once": 3}


@pytest.mark.needs_promtool
def test_a_pod_that_tells_nothing_has_no_number(tmp_path: Path) -> None:
    def samples(values: dict[str, int]) -> list[dict[str, object]]:
        return [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in values.items()]

    series = [
        {"series": f'{name}{{namespace="relayfile",pod="{pod}"}}', "values": values[place]}
        for place, name in enumerate(("relayfile_ingest_accept_seconds_count", "relayfile_ingest_sendable_age_seconds"))
        for pod, values in PODS.items()
    ]
    expected = {
        "relayfile_ingest_requests_per_second": REQUESTS,
        "relayfile_ingest_sendable_age_seconds": AGES,
    }
    assert expected.keys() == RULES.keys()
    asked = [
        {"expr": RULES[name], "eval_time": "10m", "exp_samples": samples(values)} for name, values in expected.items()
    ]
    case = {"interval": "1m", "input_series": series, "promql_expr_test": asked}
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "1m", "tests": [case]}))
    ended = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=50, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
