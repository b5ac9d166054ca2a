"""What people open: nothing of a log gets into it as markup."""

from __future__ import annotations

from typing import Any

from gitops_ml.monitor.page import render

DRIFT = {"psi": 0.4, "limit": 0.1, "ratio": 4.0, "missing": 0.25, "missing_before": 0.0}
FINE = {**DRIFT, "psi": 0.16, "ratio": 1.6}
WINDOW: dict[str, Any] = {
    "start": "2013-07-01",
    "end": "2013-07-08",
    "rows": 1234,
    "labelled": 7,
    "why_not": None,
    "off": [{"kind": "column", "name": "<b>"}],
    "metrics": {"roc_auc": {"value": None, "low": None, "high": None, "limit": 0.7}},
    "scores": {},
    "columns": {"near": FINE, "<b>": DRIFT},
}
REPORT: dict[str, Any] = {
    "status": "drift",
    "headline": "A <script> drifts",
    "model": {"sha256": "ab" * 32},
    "releases": [{"release": "<i>", "rows": 1234}],
    "reference": {"rows": 5000, "windows": 20, "end": None},
    "settings": {},
    "acting": [{"kind": "column", "name": "<b>", "windows": ["2013-07-01"], "of": 1}],
    "windows": [WINDOW, {**WINDOW, "columns": {}, "metrics": {}, "why_not": "has <too> few rows"}],
    "problems": ["<u>"],
    "notes": [],
}


def test_text_is_escaped() -> None:
    page = render(REPORT)
    for text in ("<script>", "<i>", "<u>", "<too>", "<b>"):
        assert text not in page
    assert "&lt;script&gt;" in page


def test_what_is_off_stands_first_and_is_marked() -> None:
    page = render(REPORT)
    assert page.index("<code>&lt;b&gt;</code></th>") < page.index("<code>near</code></th>")
    assert '<td class="number off" title="PSI 0.4, missing 25.0%, before 0.0%">4.00</td>' in page
    assert '<td class="number near"' in page
    assert "undefined" in page
    assert "<h2>Scores</h2>" not in page
    assert "<h2>To know</h2>" not in page
