"""The alert about volumes that nobody mounts: the newest incarnation of a pod decides, whatever its address was."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.manifests import one, rendered

ROWS = 'relayfile_ingest_spool_rows{namespace="relayfile",pod="relayfile-ingest-%d",instance="%s"}'
CLAIM = 'kube_persistentvolumeclaim_info{namespace="relayfile",persistentvolumeclaim="spool-relayfile-ingest-%d"}'
MOUNTED = "kube_pod_spec_volumes_persistentvolumeclaims_info" + CLAIM[len("kube_persistentvolumeclaim_info") :]
SERIES = {
    # Went with rows: orphaned.
    CLAIM % 1: "1x120",
    ROWS % (1, "10.0.0.1:7431"): "5x10 stale",
    # Came back at another address, emptied its spool, and went.
    CLAIM % 2: "1x120",
    ROWS % (2, "10.0.0.2:7431"): "5x10 stale",
    ROWS % (2, "10.0.0.9:7431"): "_x20 5x5 0x10 stale",
    # Is there.
    CLAIM % 3: "1x120",
    MOUNTED % 3: "1x120",
    ROWS % (3, "10.0.0.3:7431"): "5x120",
}


@pytest.mark.needs_promtool
def test_only_the_newest_incarnation_of_a_pod_tells_of_its_spool(tmp_path: Path) -> None:
    rules = one(rendered("overlays/production"), "PrometheusRule", "relayfile-kubernetes")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules["spec"]))
    [rule] = rules["spec"]["groups"][0]["rules"]
    claim = "spool-relayfile-ingest-1"
    orphaned = {
        "exp_labels": {
            "severity": "ticket",
            "namespace": "relayfile",
            "pod": "relayfile-ingest-1",
            "persistentvolumeclaim": claim,
        },
        "exp_annotations": {
            "summary": rule["annotations"]["summary"].replace("{{ $labels.persistentvolumeclaim }}", claim),
            "runbook_url": rule["annotations"]["runbook_url"],
        },
    }
    case = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in SERIES.items()],
        "alert_rule_test": [{"eval_time": "100m", "alertname": "RelayfileSpoolOrphaned", "exp_alerts": [orphaned]}],
    }
    tests = tmp_path / "tests.yaml"
    tests.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]}))
    ended = subprocess.run(
        ["promtool", "test", "rules", str(tests)], capture_output=True, text=True, timeout=50, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
