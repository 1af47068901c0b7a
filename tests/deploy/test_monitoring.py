"""Grafana's dashboard and Prometheus's alerts."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyreel.worker.attempt import Interruption
from keyreel.worker.completion import MACHINE_FAILURE
from tests.deploy.files import DEPLOY, METRIC, ROOT, load, metric_labels, walk

PROMETHEUS = DEPLOY / "prometheus"
ALERTS: list[dict[str, Any]] = load(PROMETHEUS / "alerts.yaml")["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "keyreel.json").read_text())
SELECTOR = re.compile(r"(keyreel_\w+)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\bby \(([^)]*)\)")


def panel_expressions() -> Iterator[str]:
    for part in walk(DASHBOARD["panels"]):
        if "expr" in part:
            yield part["expr"]


EXPRESSIONS = [*panel_expressions(), *(alert["expr"] for alert in ALERTS)]


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if not found:
        pytest.skip("promtool is not installed")
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_metrics_and_labels_exist(expression: str) -> None:
    labels = metric_labels()
    used = SELECTOR.findall(expression)
    assert used or 'job=~"keyreel' in expression
    assert {name for name, _ in used} <= labels.keys()
    for name, selector in used:
        assert set(re.findall(r"(\w+)=~?", selector)) <= labels[name]
    known = set().union(*(labels[name] for name, _ in used), {"instance"})
    for grouping in GROUPING.findall(expression):
        assert set(re.findall(r"\w+", grouping)) <= known


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for text in panel_expressions() for name in METRIC.findall(text)}
    assert shown == {re.sub(r"_(bucket|sum|count)$", "", name) for name in metric_labels()}


def test_failures_of_machines_are_those_that_workers_report() -> None:
    (alert,) = (alert for alert in ALERTS if alert["alert"] == "KeyreelAttemptsFail")
    (types,) = re.findall(r'type=~"([^"]*)"', alert["expr"])
    machine = {Interruption.LOST, Interruption.CUT_OFF}
    assert set(types.split("|")) == {MACHINE_FAILURE, *(why.name.lower() for why in machine)}


def test_panels_do_not_overlap() -> None:
    places = [
        {
            (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
            for x in range(panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["h"])
        }
        for panel in DASHBOARD["panels"]
    ]
    assert sum(map(len, places)) == len(set().union(*places))
    assert all(first["id"] < second["id"] for first, second in pairwise(DASHBOARD["panels"]))


def test_the_runbook_has_a_section_for_each_alert() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    assert {alert["alert"] for alert in ALERTS} == set(re.findall(r"^\| `(Keyreel\w+)`", text, re.MULTILINE))


def test_prometheus_accepts_the_expressions_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel_{number}", "expr": text.replace("$__rate_interval", "5m").replace("$pool", ".*")}
        for number, text in enumerate(panel_expressions())
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    subprocess.run([promtool, "check", "rules", path], check=True, capture_output=True)


def test_alerts_fire_when_they_should(promtool: str) -> None:
    subprocess.run([promtool, "check", "config", PROMETHEUS / "prometheus.yaml"], check=True, capture_output=True)
    subprocess.run([promtool, "test", "rules", PROMETHEUS / "alerts_test.yaml"], check=True, capture_output=True)
    tested = {
        test["alertname"]
        for part in load(PROMETHEUS / "alerts_test.yaml")["tests"]
        for test in part["alert_rule_test"]
        if "exp_alerts" in test
    }
    assert tested == {alert["alert"] for alert in ALERTS}
