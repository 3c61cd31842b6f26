"""Corrections from the dashboard: what is written down, and what becomes of it as labels."""

import errno
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge.corrections
from contract.bundle import open_bundle
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.session_names import CORRECTIONS_NAME
from contract.telemetry import FeedAddress, LiveUpdate
from edge import cli
from edge.bundles import DEFAULT_BUNDLE
from edge.corrections import COLUMNS, KEPT_S, MOST_S, Corrections, read_corrections
from edge.feed import LiveFeed
from edge.live_settings import LiveSettings
from edge.model_card import model_card
from edge.offline.score_labels import Segment, read_labels
from edge.sinks.session_csv import SessionLog
from firmware_config.profile import Profile
from tests.edge.results import SECOND, a_face, a_kpi, a_result

SESSION = "20260102T030405_000006Z.csv"
UTC_NS = 1_767_323_045 * SECOND


class Box:
    """Corrections over a clock that is set by hand, fed with frames at 10 per second."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 100.0
        self.file = folder / CORRECTIONS_NAME
        self.corrections = Corrections(
            self.file, SESSION, mono_ns=lambda: round(self.now_s * SECOND), utc_ns=lambda: UTC_NS
        )

    def shows(self, seconds: float, **labels: str) -> None:
        """Frames in which `t1="happy"` is the label of track 1, and so on."""
        for _ in range(round(seconds * 10)):
            self.now_s += 0.1
            faces = [a_face(int(key[1:]), label=label) for key, label in labels.items()]
            self.corrections.note(a_result(0, round(self.now_s * SECOND), *faces))

    def correct(self, track: int, expression: str, **more: Any) -> dict[str, Any]:
        return self.corrections.answer({"track": track, "expression": expression, **more})


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    yield Box(tmp_path)


def test_a_correction_is_a_row_that_says_what_was_shown_when(box: Box) -> None:
    box.shows(1.0, t1="sad")  # 100.1 … 101.0
    box.shows(2.0, t1="happy", t7="neutral")  # 101.1 … 103.0
    answer = box.correct(1, "surprise")
    assert answer == {
        "corrected": {"track": 1, "shown": "happy", "expression": "surprise", "seconds": 1.9}
    }
    head, row = box.file.read_text().splitlines()
    assert head == "session,utc_ns,track,start_mono_ns,end_mono_ns,shown,confidence,expression"
    assert row == f"{SESSION},{UTC_NS},1,101100000000,103000000000,happy,0.9,surprise"


def test_what_counts_is_what_was_seen_when_the_button_was_pressed(box: Box) -> None:
    box.shows(2.0, t1="sad")  # until 102.0
    box.shows(3.0, t1="happy")  # until 105.0
    assert box.correct(1, "fear", age_s=3.5)["corrected"]["shown"] == "sad"
    (row,) = read_corrections(box.file)
    assert (row.start_mono_ns, row.end_mono_ns) == (100_100_000_000, 101_500_000_000)


def test_of_a_label_held_for_long_only_its_last_seconds_are_corrected(box: Box) -> None:
    box.shows(30.0, t1="happy")
    assert box.correct(1, "sad")["corrected"]["seconds"] == MOST_S


def test_somebody_who_has_just_left_can_be_corrected_and_later_not(box: Box) -> None:
    box.shows(1.0, t1="happy")
    box.shows(10.0)
    assert "corrected" in box.correct(1, "sad")
    box.shows(KEPT_S + 10)
    assert "was not in view" in box.correct(1, "sad")["error"]
    assert len(read_corrections(box.file)) == 1


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"track": 2, "expression": "sad"}, "person 2 was not in view then"),
        ({"track": 1, "expression": "sad", "age_s": 30}, "person 1 was not in view then"),
        ({"track": 1, "expression": "happy"}, "nothing to correct"),
        ({"track": 1, "expression": "hapy"}, "did you mean 'happy'"),
        ({"track": 1, "expression": "uncertain"}, "not an expression"),
        ({"track": True, "expression": "sad"}, "track"),
        ({"track": "1", "expression": "sad"}, "track"),
        ({"track": 1, "expression": "sad", "age_s": float("nan")}, "age_s"),
        ({"track": 1, "expression": "sad", "age_s": -1}, "age_s"),
        ({"track": 1, "expression": "sad", "age_s": 61}, "age_s"),
        ({"track": 1, "expression": "sad", "file": "/etc/passwd"}, "unknown key 'file'"),
        ({"track": 1}, "expression"),
        ([], "correction"),
        (None, "correction"),
    ],
)
def test_a_correction_that_cannot_be_is_refused_in_one_line(
    box: Box, request_: Any, says: str
) -> None:
    box.shows(1.0, t1="happy")
    answer = box.corrections.answer(request_)
    assert list(answer) == ["error"]
    assert says in answer["error"] and "\n" not in answer["error"]
    assert not box.file.exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=8,
)


@given(request_=JSON | st.fixed_dictionaries({"track": JSON, "expression": JSON, "age_s": JSON}))
def test_whatever_is_asked_the_answer_is_json_and_the_file_stays_readable(request_: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        box = Box(Path(folder))
        box.shows(0.5, t0="happy", t1="sad")
        assert json.loads(json.dumps(box.corrections.answer(request_)))
        if box.file.exists():
            read_corrections(box.file)


def test_a_disk_that_takes_nothing_is_said_and_harms_nothing(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.shows(1.0, t1="happy")
    box.correct(1, "sad")
    before = box.file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(edge.corrections, "write_text_atomic", full)
    assert box.correct(1, "fear")["error"].endswith("No space left on device")
    assert box.file.read_bytes() == before


def test_a_file_that_somebody_spoilt_is_named_and_left_alone(box: Box) -> None:
    box.shows(1.0, t1="happy")
    box.file.write_text(f"{','.join(COLUMNS)}\n{SESSION},1,2\n")
    assert f"{box.file}: line 2: 3 fields" in box.correct(1, "sad")["error"]
    box.file.write_text("a,b\n")
    assert "line 1" in box.correct(1, "sad")["error"]
    assert box.file.read_text() == "a,b\n"


def test_a_row_is_added_to_what_was_there_as_it_stood(box: Box) -> None:
    box.shows(1.0, t1="happy")
    earlier = f'{",".join(COLUMNS)}\n"{SESSION}",1,2,3,4,happy,0.90,sad'  # an editor's, unended
    box.file.write_text(earlier)
    box.correct(1, "fear")
    box.correct(1, "angry")
    assert box.file.read_text().startswith(f"{earlier}\n")
    assert [r.expression for r in read_corrections(box.file)] == ["sad", "fear", "angry"]


def test_the_file_does_not_grow_for_ever(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.corrections, "MOST_BYTES", 400)
    box.shows(1.0, t1="happy")
    answers = [box.correct(1, "sad") for _ in range(10)]
    assert "corrected" in answers[0] and "is full" in answers[-1]["error"]
    assert box.file.stat().st_size <= 400


def logged(folder: Path) -> Path:
    """A session of 10 frames a second: track 1 is the largest for 3 s, then track 2 for 3 s."""
    file = folder / SESSION
    session = SessionLog(file, {})
    small, large = (100.0, 100.0, 50.0, 50.0), (300.0, 100.0, 90.0, 90.0)
    for i in range(60):
        first, second = (large, small) if i < 30 else (small, large)
        faces = a_face(1, first, label="happy"), a_face(2, second, label="sad")
        session.write(a_result(i, 50 * SECOND + i * SECOND // 10, *faces))
    session.close()
    return file


def write_rows(folder: Path, *rows: tuple[int, float, float, str], session: str = SESSION) -> None:
    lines = [
        f"{session},1,{track},{round((50 + start) * SECOND)},{round((50 + end) * SECOND)},x,0.9,{e}"
        for track, start, end, e in rows
    ]
    (folder / CORRECTIONS_NAME).write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")


def test_corrections_become_labels_of_the_face_that_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session, out = logged(tmp_path), tmp_path / "labels.csv"
    # Track 1 is large until 2.9 s; track 2 from 3.0 s; the last row corrects the one before it.
    write_rows(tmp_path, (1, 2.0, 4.0, "fear"), (2, 4.0, 5.0, "angry"), (2, 4.5, 5.0, "disgust"))
    assert cli.main(["corrections", str(session), "--out", str(out)]) == 0
    assert read_labels(out) == (
        Segment(2.0, 3.0, "fear"),
        Segment(4.0, 4.5, "angry"),
        Segment(4.5, 5.1, "disgust"),
    )
    capsys.readouterr()
    # And `score` takes them: what was shown (happy, sad) was wrong throughout.
    assert cli.main(["score", str(session), "--labels", str(out)]) == 0
    accuracy = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("accuracy"))
    assert accuracy.split()[-1] == "0.000%"


@pytest.mark.parametrize(
    ("rows", "session", "says"),
    [
        ([], SESSION, "no correction of"),
        ([(1, 1.0, 2.0, "fear")], "20260102T030405_000007Z.csv", "no correction of"),
        ([(2, 1.0, 2.0, "fear")], SESSION, "was the largest"),
    ],
)
def test_nothing_to_label_is_said(
    tmp_path: Path, rows: list[tuple[int, float, float, str]], session: str, says: str
) -> None:
    log, out = logged(tmp_path), tmp_path / "labels.csv"
    write_rows(tmp_path, *rows, session=session)
    with pytest.raises(UserError, match=says):
        cli.main(["corrections", str(log), "--out", str(out)])
    assert not out.exists()


def test_a_session_without_corrections_says_how_they_are_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="made on the dashboard"):
        cli.main(["corrections", str(logged(tmp_path)), "--out", str(tmp_path / "labels.csv")])


def test_every_expression_can_be_chosen(box: Box) -> None:
    box.shows(1.0, t1="uncertain")
    for expression in EXPRESSIONS:
        assert box.correct(1, expression)["corrected"]["expression"] == expression
    assert [row.expression for row in read_corrections(box.file)] == list(EXPRESSIONS)


def feed(folder: Path, corrections: Corrections | None, model: dict[str, Any]) -> LiveFeed:
    """A feed that is asked directly, without its sockets."""
    profile = Profile(name="desk")
    settings = LiveSettings(profile, lambda: profile)
    return LiveFeed(FeedAddress(folder), settings=settings, corrections=corrections, model=model)


def test_the_box_takes_corrections_of_what_went_over_its_feed(box: Box, tmp_path: Path) -> None:
    live = feed(tmp_path, box.corrections, {})
    result = a_result(0, round(box.now_s * SECOND), a_face(3, label="happy"))
    live.put(LiveUpdate(result, a_kpi()), None)
    answer = live.answer(b'{"correct": {"track": 3, "expression": "sad"}}')
    assert answer["corrected"]["shown"] == "happy"
    assert [row.track for row in read_corrections(box.file)] == [3]


def test_without_a_session_log_there_is_nothing_to_correct(tmp_path: Path) -> None:
    answer = feed(tmp_path, None, {}).answer(b'{"correct": {"track": 3, "expression": "sad"}}')
    assert "no session log" in answer["error"]


def test_the_box_tells_of_its_model_with_figures_and_card(tmp_path: Path) -> None:
    bundle = open_bundle(DEFAULT_BUNDLE)
    chosen: Any = SimpleNamespace(
        artifact=bundle.info.artifacts[0], session=SimpleNamespace(backend="openvino"),
        latency_ms=1.5,
    )  # fmt: skip
    answer = feed(tmp_path, None, model_card(bundle, chosen)).answer(b'{"get": "model"}')
    told = json.loads(json.dumps(answer, allow_nan=False))
    assert told["name"] == bundle.info.name and told["sha256"] == bundle.sha256
    assert told["card"] == (DEFAULT_BUNDLE / "model_card.md").read_text()
    assert {name: f["accuracy"] for name, f in told["metrics"].items()} == {
        name: f["accuracy"] for name, f in bundle.info.metrics.items()
    }
    assert (told["precision"], told["backend"]) == ("int8", "openvino")
