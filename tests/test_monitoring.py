"""The dashboard and the page on monitoring have the metrics that are emitted, with their labels: all, and no others."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opensearch_batch.core.runs.metrics import METRICS, SHARED_TAGS, Metric

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "reference" / "monitoring.md").read_text()
METRIC = re.compile(r"\b(airflow_\w+)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\b(?:by|without) \(([^)]*)\)")
LABEL_VALUES = re.compile(r"label_values\((\w+), (\w+)\)")


def prometheus_names(metric: Metric) -> set[str]:
    """Return the series that `statsd_exporter` makes of a metric, without its quantiles."""
    name = f"airflow_{metric.name}".replace(".", "_")
    return {f"{name}_sum", f"{name}_count"} if metric.kind == "timer" else {name}


@pytest.fixture(scope="module")
def dashboard() -> Any:
    """The dashboard as Grafana imports it."""
    return json.loads((ROOT / "include" / "grafana" / "opensearch_batch.json").read_text())


def queries(dashboard: Any) -> Iterator[tuple[str, str]]:
    """Yield each query of a panel with its legend."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"], target.get("legendFormat", "")


def test_the_queries_have_all_metrics_with_all_their_labels_and_no_others(dashboard: Any) -> None:
    """The panels filter by the shared labels, and split by the own ones."""
    labels = defaultdict[str, set[str]](set)
    for query, _ in queries(dashboard):
        grouped = {label.strip() for labels in GROUPING.findall(query) for label in labels.split(",")}
        for name, selectors in METRIC.findall(query):
            assert set(re.findall(r"(\w+)=", selectors)) == set(SHARED_TAGS)
            labels[name] |= grouped | set(SHARED_TAGS)
    expected = {name: {*SHARED_TAGS, *metric.own_tags} for metric in METRICS for name in prometheus_names(metric)}
    assert labels == expected


def test_the_legends_and_the_variables_have_labels_of_their_queries(dashboard: Any) -> None:
    """Grafana shows nothing for a label that a query drops, and for a variable that is not defined."""
    names = {name for metric in METRICS for name in prometheus_names(metric)}
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    for query, legend in queries(dashboard):
        grouped = {label.strip() for labels in GROUPING.findall(query) for label in labels.split(",")}
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) == grouped
        assert {name for name in re.findall(r"\$(\w+)", query) if not name.startswith("__")} <= variables.keys()
    for tag in SHARED_TAGS:
        ((name, label),) = LABEL_VALUES.findall(variables[tag]["query"]["query"])
        assert name in names
        assert label == tag


def test_the_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: Any) -> None:
    """Grafana would move them."""
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} == set(range(24))


def test_the_page_has_the_table_of_metrics() -> None:
    """And the values of the tags."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `opensearch_batch.")]
    assert rows == [
        f"| `{metric.name}` | {metric.kind} of {metric.unit} |{''.join(f' `{tag}`' for tag in metric.own_tags)} | "
        f"{metric.stages} | {metric.meaning} |"
        for metric in METRICS
    ]
    for metric in METRICS:
        for tag, values in metric.own_tags.items():
            (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{tag}` |"))
            assert tag == "stage" or re.findall(r"`(\w+)`", row) == [tag, *values]
