"""The alert rules fire when they should, and they and the Grafana dashboard ask for what exists."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from contract.telemetry import Check, FeedAddress, Histogram, LiveUpdate, Totals
from dashboard.feed import Feed, Reading
from dashboard.metrics import BoxMetrics
from tests.edge.results import a_kpi

FLEET = Path(__file__).parents[2] / "firmware_config" / "fleet"
RULES = FLEET / "alert_rules.yml"
DASHBOARD = FLEET / "grafana_dashboard.json"
RULES_TEST = Path(__file__).with_name("alert_rules_test.yml")


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("needs promtool (apt-get install prometheus)")
    return found


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The labels of every series that /metrics shows of a box of which everything is known."""
    feed = Feed(FeedAddress(tmp_path_factory.mktemp("feed")))
    kpi = a_kpi(
        checks=(Check("camera", True, "camera live"),), drops={"overtaken": 1},
        temperature_c=50.0, totals=Totals(stages={"detect": Histogram()}),
    )  # fmt: skip
    feed.telemetry.put(Reading(LiveUpdate(None, kpi), b"", feed.clock()))
    found = {
        sample.name: set(sample.labels)
        for metric in BoxMetrics(feed).collect()
        for sample in metric.samples
    }
    feed.close()
    return found


def run(promtool: str, *arguments: object) -> str:
    done = subprocess.run(
        [promtool, *map(str, arguments)], text=True, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def queries() -> list[str]:
    """Every query of the Grafana dashboard."""
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    targets = [target for panel in board["panels"] for target in panel.get("targets", [])]
    return [target["expr"] for target in targets]


def test_the_rules_are_valid(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "check", "rules", "--lint-fatal", RULES)


def test_the_rules_fire_when_they_should_and_not_else(promtool: str, tmp_path: Path) -> None:
    file = tmp_path / "test.yml"
    file.write_text(RULES_TEST.read_text().replace("RULES", str(RULES)))
    assert "SUCCESS" in run(promtool, "test", "rules", file)


def test_every_rule_says_how_to_mend_it() -> None:
    text = RULES.read_text()
    rules = text.split("- alert: ")[1:]
    assert len(rules) >= 10
    assert all("remedy: " in rule and "summary: " in rule for rule in rules)


@pytest.mark.parametrize("text", [RULES.read_text(), *queries()], ids=lambda text: text[:40])
def test_only_metrics_and_labels_that_exist_are_asked_for(
    text: str, series: dict[str, set[str]]
) -> None:
    # Their texts speak of programs and keys too; in a query a name is followed by one of these.
    used = re.findall(r"\b(fer_[a-z_]+)(\{[^}]*\})?", text)
    assert used
    for name, selector in used:
        assert name in series, name
        labels = set(re.findall(r'(\w+)(?:=|!|~)+"', selector)) - {"instance"}
        assert labels <= series[name], f"{name}{selector}"


def test_grafanas_queries_are_valid(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": "a:query", "expr": query.replace("$__rate_interval", "5m")}
        for query in queries()
    ]
    assert len(rules) >= 15
    # JSON is YAML. One group each: two rules of a group must not be the same.
    groups = [{"name": f"query {k}", "rules": [rule]} for k, rule in enumerate(rules)]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": groups}))
    assert f"{len(rules)} rules found" in run(promtool, "check", "rules", "--lint", "none", file)


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """No data source of the machine it was made on; panels neither overlap nor share a number."""
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    sources = {panel["datasource"]["uid"] for panel in panels if "datasource" in panel}
    assert sources == {"${datasource}"}
    assert "id" not in board
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
