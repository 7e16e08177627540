"""The alerts as the Prometheus operator takes them: a PrometheusRule with the rules of deploy/prometheus."""

from pathlib import Path

RULES = Path(__file__).resolve().parent.parent / "deploy/prometheus/relayfile.rules.yaml"
FILE = "deploy/k8s/components/monitors/rules.yaml"

_BEFORE = """\
# Generated from deploy/prometheus/relayfile.rules.yaml (`make docs`): change that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: relayfile
spec:
"""


def prometheus_rule() -> str:
    """The manifest; its comments are those of the rules."""
    lines = RULES.read_text().splitlines()
    groups = lines[lines.index("groups:") :]
    return _BEFORE + "".join(f"  {line}\n" if line else "\n" for line in groups)
