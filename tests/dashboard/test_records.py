"""Session files over HTTP, the last hour, and what is passed on to the box."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from hypothesis import given
from hypothesis import strategies as st

from contract.expressions import EXPRESSIONS
from dashboard.history import HOUR_MINUTES, MOST_GAP_S, History, LastHour
from dashboard.records import MOST_LISTED, records_blueprint
from tests.dashboard.fake_edge import make_kpi
from tests.edge.results import a_face, a_result

FIRST, SECOND = "20260102T030405_000006Z.csv", "20260102T030405_000006Z.part2.csv"
CORRECTIONS = "corrections.csv"


class Asked:
    """Stands for the box: keeps what it was asked."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def __call__(self, message: dict[str, Any]) -> ResponseReturnValue:
        self.messages.append(message)
        return {"heard": True}


def client_of(folder: Path | None, asked: Asked | None = None) -> FlaskClient:
    app = Flask(__name__)
    app.register_blueprint(records_blueprint(folder, asked or Asked()))
    return app.test_client()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Session logs among files that are nobody's business, links to such among them."""
    logs = tmp_path / "sessions"
    logs.mkdir()
    for name in (FIRST, SECOND, CORRECTIONS):
        (logs / name).write_text(f"this is {name}\n")
    for other in ("private.csv", ".hidden.csv", f"{FIRST}.bak", "20260102T030405_000006Z.txt"):
        (logs / other).write_text("private")
    (tmp_path / "secret").write_text("private")
    (logs / "20260102T030405_000007Z.csv").symlink_to(tmp_path / "secret")
    (logs / "20260102T030405_000008Z.csv").mkdir()
    yield logs


def test_only_session_logs_and_corrections_are_listed(folder: Path) -> None:
    answer = client_of(folder).get("/api/sessions").get_json()
    assert [each["name"] for each in answer["files"]] == [CORRECTIONS, SECOND, FIRST]
    assert (answer["written"], answer["total"]) == (True, 3)
    assert answer["files"][2]["bytes"] == len(f"this is {FIRST}\n")
    assert answer["files"][2]["changed_utc"].endswith("+00:00")


def test_a_listed_file_comes_as_a_csv_to_keep(folder: Path) -> None:
    answer = client_of(folder).get(f"/api/sessions/{FIRST}")
    assert answer.data == f"this is {FIRST}\n".encode()
    assert answer.headers["Content-Disposition"] == f"attachment; filename={FIRST}"
    assert answer.mimetype == "text/csv"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "name",
    [
        "private.csv", ".hidden.csv", f"{FIRST}.bak", "20260102T030405_000006Z.txt", "nothing.csv",
        "20260102T030405_000007Z.csv", "20260102T030405_000008Z.csv", "..", "%2e%2e%2fsecret",
        "..%2fsecret", "%2fetc%2fpasswd", f"{FIRST}%00", f"./{FIRST}/../../secret",
        f"{FIRST}%0a", f"..%5c{FIRST}", FIRST.lower(),
    ],
)  # fmt: skip
def test_nothing_else_is_given_out(folder: Path, name: str) -> None:
    answer = client_of(folder).get(f"/api/sessions/{name}")
    assert answer.status_code == 404
    assert b"private" not in answer.data and b"root:" not in answer.data


@given(name=st.text(max_size=30))
def test_no_name_reaches_another_file(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    logs = tmp_path_factory.getbasetemp() / "any-name"
    logs.mkdir(exist_ok=True)
    (logs / "other.csv").write_text("private")
    answer = client_of(logs).get("/api/sessions/" + name.replace("?", "").replace("#", ""))
    assert answer.status_code in (200, 308, 404)
    assert b"private" not in answer.data


def test_without_a_folder_there_is_nothing_and_that_is_no_fault(tmp_path: Path) -> None:
    for place, written in ((None, False), (tmp_path / "not there yet", True)):
        answer = client_of(place).get("/api/sessions").get_json()
        assert answer == {"written": written, "total": 0, "files": []}
        assert client_of(place).get(f"/api/sessions/{FIRST}").status_code == 404


def test_the_list_has_an_end(tmp_path: Path) -> None:
    for i in range(MOST_LISTED + 3):
        (tmp_path / f"20260102T030405_{i:06}Z.csv").touch()
    answer = client_of(tmp_path).get("/api/sessions").get_json()
    assert (len(answer["files"]), answer["total"]) == (MOST_LISTED, MOST_LISTED + 3)
    assert answer["files"][0]["name"] == f"20260102T030405_{MOST_LISTED + 2:06}Z.csv"


def test_the_box_is_asked_for_the_model_and_told_of_corrections() -> None:
    asked = Asked()
    client = client_of(None, asked)
    assert client.get("/api/model").get_json() == {"heard": True}
    wanted = {"track": 1, "expression": "sad", "age_s": 0.5}
    assert client.post("/api/corrections", json=wanted).status_code == 200
    assert asked.messages == [{"get": "model"}, {"correct": wanted}]


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"null", b"{", b"\xff", b"[" * 5000])
def test_a_correction_that_is_no_object_does_not_reach_the_box(body: bytes) -> None:
    asked = Asked()
    answer = client_of(None, asked).post(
        "/api/corrections", data=body, content_type="application/json"
    )
    assert answer.status_code == 400 and "track" in answer.get_json()["error"]
    assert asked.messages == []


def shows(*labels: str) -> Any:
    return a_result(0, 0, *(a_face(i, label=label) for i, label in enumerate(labels)))


def test_the_last_hour_counts_seconds_of_each_label_by_the_minute() -> None:
    hour = LastHour()
    hour.add(shows("happy"), 60.0)  # nothing is known of before
    for tick in range(1, 121):  # 30 s at 4 a second, into the next minute
        hour.add(shows("happy", "sad") if tick <= 80 else shows("happy"), 100.0 + tick / 4)
    assert hour.minutes(130.0) == [
        # The first second is all that a gap of 40 s is good for.
        {"age_min": 1, "seconds": {"happy": 20.5, "sad": 20.5}},
        {"age_min": 0, "seconds": {"happy": 10.25, "sad": 0.25}},
    ]


def test_what_is_older_than_an_hour_is_forgotten() -> None:
    hour = LastHour()
    for second in range(0, 3 * 3600, 1):
        hour.add(shows("happy"), float(second))
    minutes = hour.minutes(3 * 3600 - 1)
    assert [each["age_min"] for each in minutes] == list(range(HOUR_MINUTES - 1, -1, -1))
    assert sum(each["seconds"]["happy"] for each in minutes) == 3600
    assert hour.minutes(5 * 3600.0) == []


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0, 5),
            st.none() | st.lists(st.sampled_from([*EXPRESSIONS, "uncertain"]), max_size=3),
        ),
        max_size=40,
    )
)
def test_no_more_time_is_counted_than_passed(
    steps: list[tuple[float, list[str] | None]],
) -> None:
    hour, now_s, most_s = LastHour(), 1000.0, 0.0
    for step, labels in steps:
        now_s += step
        hour.add(None if labels is None else shows(*labels), now_s)
        most_s += min(step, MOST_GAP_S) * len(labels or [])
    counted = [s for each in hour.minutes(now_s) for s in each["seconds"].values()]
    assert all(seconds >= 0 for seconds in counted)
    assert sum(counted) <= most_s + 0.001 * (len(counted) + 1)


def test_a_point_of_the_history_holds_what_the_charts_draw() -> None:
    history = History()
    history.add(make_kpi(1.0, drops={"overtaken": 3, "unreadable": 4}, temperature_c=None), 1.0)
    (point,) = json.loads(json.dumps(history.points(1.5)))
    assert (point["drops"], point["temperature_c"], point["age_s"]) == (7, None, 0.5)
    assert {"fps", "e2e_p50_ms", "e2e_p95_ms", "e2e_p99_ms", "cpu_percent", "rss_mb"} <= set(point)
