"""Every reason for which a request is refused has a way out, and the page of providers names the same ones."""

import re
from pathlib import Path

from relayfile.cli.refusal import WAYS_OUT, explained

ROOT = Path(__file__).resolve().parents[3]


def test_reasons_of_signatures_have_a_way_out() -> None:
    source = (ROOT / "relayfile/ingest/webhooks/signature.py").read_text()
    reasons = set(re.findall(r'SignatureRefused\("([A-Z_]+)"', source))
    assert reasons
    assert reasons <= WAYS_OUT.keys()


def test_the_page_says_the_same() -> None:
    page = (ROOT / "docs/providers/README.md").read_text()
    for reason, way_out in WAYS_OUT.items():
        assert f"| `{reason}` | {way_out.replace('<', '&lt;')} |" in page


def test_each_reason_is_explained_once() -> None:
    lines = explained(["NOT_FOUND", "SECRET_MISSING", "NOT_FOUND", "OF_TOMORROW"]).splitlines()
    assert [line.split()[0] for line in lines] == ["NOT_FOUND", "SECRET_MISSING"]
    assert explained([]) == ""
