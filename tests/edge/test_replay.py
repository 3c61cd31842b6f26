"""A replay gives what was shown live, to the last bit, from the logged probabilities alone."""

import csv
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import pytest

from contract.bundle import Bundle
from contract.errors import UserError
from contract.telemetry import FrameResult
from edge.cameras.factory import open_camera
from edge.capture import frames
from edge.detector_files import YUNET_FILE
from edge.kpi import KpiTotals
from edge.offline.replay import SHOWN, main, replay
from edge.offline.session_log import read_parts, read_session
from edge.setup import start_engine
from edge.sinks.session_csv import COLUMNS, Limits, SessionLog
from edge.smooth import SmoothingSettings
from firmware_config.profile import load_profile
from tests.edge.test_session_csv import SETTINGS, scene, write


def scramble(file: Path) -> None:
    """Nonsense in every column that a replay has to find out for itself."""
    first, *rows = file.read_text().splitlines()
    made = []
    for row in csv.DictReader(rows):
        if row["track"]:
            row |= {"label": "fear", "top": "angry", "confidence": "2.5", "held_s": "-1.0"}
        made.append(row)
    with file.open("w", newline="") as stream:
        stream.write(first + "\n")
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)


def assert_replays(file: Path, live: list[FrameResult], totals: KpiTotals) -> None:
    """The scrambled log gives the live results and their KPIs again."""
    scramble(file)
    session = read_session(file)
    assert {f.label for frame in session.frames for f in frame.faces} == {"fear"}
    again, counted = [], KpiTotals()
    for result, flips in replay(session.frames, session.settings()):
        again.append(result)
        counted.add(result, flips)
    assert again == live
    assert (counted.frames, counted.snapshot()) == (totals.frames, totals.snapshot())


def log_scene(file: Path, settings: SmoothingSettings = SETTINGS) -> list[FrameResult]:
    results = scene(settings=settings)
    write(file, results, smoothing=asdict(settings), bundle={"class_thresholds": {"sad": 0.5}})
    return results


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        replace(SETTINGS, tau_s=0.0, hysteresis=0.0),
        replace(SETTINGS, dwell_s=0.7, vote_s=0.2, quality_grace_s=0.2),
    ],
    ids=["plain", "raw", "dwell, vote"],
)
def test_a_replay_does_not_need_the_smoothed_columns(
    tmp_path: Path, settings: SmoothingSettings
) -> None:
    live = log_scene(tmp_path / "session.csv", settings)
    scramble(tmp_path / "session.csv")
    session = read_session(tmp_path / "session.csv")
    assert session.settings() == settings
    assert [result for result, _ in replay(session.frames, session.settings())] == live


CHANGES = {
    60: replace(SETTINGS, tau_s=1.0),
    150: replace(SETTINGS, tau_s=1.0, vote_s=0.3, dwell_s=0.5),
    260: replace(SETTINGS, vote_s=0.1, hysteresis=0.02, quality_grace_s=0.0),
    330: SETTINGS,
}
"""Settings that take over at a frame, as somebody tries what suits."""


@pytest.mark.parametrize("small", [False, True], ids=["", "in many small parts"])
def test_settings_that_change_meanwhile_are_replayed_too(tmp_path: Path, small: bool) -> None:
    live = scene(changes=CHANGES)
    limits = Limits(20_000, 10**9, 10**9, 10**9) if small else None
    log = SessionLog(tmp_path / "session.csv", {"smoothing": asdict(SETTINGS)}, limits)
    for result in live:
        if result.sequence in CHANGES:
            log.change({"smoothing": asdict(CHANGES[result.sequence])})
        log.write(result)
    log.close()
    assert len(list(tmp_path.iterdir())) == 5 or small
    session = read_parts(tmp_path / "session.csv")
    assert session.settings() == SETTINGS
    assert session.changes == tuple(CHANGES.items())
    again = replay(session.frames, session.settings(), session.changes)
    assert [result for result, _ in again] == live
    unchanged = replay(session.frames, session.settings())
    assert [result for result, _ in unchanged] != live, "the changes are seen in the labels"


def test_the_command_knows_of_settings_that_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = SessionLog(tmp_path / "session.csv", {"smoothing": asdict(SETTINGS)})
    for result in scene(changes=CHANGES):
        if result.sequence in CHANGES:
            log.change({"smoothing": asdict(CHANGES[result.sequence])})
        log.write(result)
    log.close()
    again = tmp_path / "again.csv"
    assert main([str(tmp_path / "session.csv"), "--check", "--out", str(again)]) == 0
    assert "the same to the last bit" in capsys.readouterr().out
    for part in ("", *(f".part{number}" for number in range(2, 6))):
        written = (tmp_path / f"again{part}.csv").read_text()
        assert written == (tmp_path / f"session{part}.csv").read_text()
    calm = tmp_path / "calm.csv"
    assert main([str(tmp_path / "session.csv"), "--smoothing", "calm", "--out", str(calm)]) == 0
    assert read_parts(calm).changes == (), "what would have been, had it been so all the time"


def run_live(camera: str, bundle: Bundle, detector: str, count: int, file: Path) -> None:
    """A run of the real pipeline, logged, scrambled and replayed."""
    wanted = {"runtime.bundle": bundle.folder, "detector.kind": detector, "smoothing.vote_s": 0.1}
    engine = start_engine(load_profile("default", wanted))
    source = open_camera(camera, width=640, height=480, fps=30, seed=0, paced=False)
    log = SessionLog(file, {"smoothing": asdict(engine.pipeline.smoothing)})
    live, totals = [], KpiTotals()
    for frame in islice(frames(source), count):
        result = engine.pipeline.process(frame)
        log.write(result)
        live.append(result)
        totals.add(result, engine.pipeline.flips)
    log.close()
    engine.chosen.session.close()
    assert totals.frames_with_faces > 0.9 * totals.frames > 0
    assert_replays(file, live, totals)


def test_a_run_before_the_demo_camera_is_replayed(
    tmp_path: Path, tiny: Bundle, own_cache: Path, demo_portraits: None
) -> None:
    run_live("demo", tiny, "haar", 40, tmp_path / "session.csv")


def test_a_run_on_a_real_clip_is_replayed(
    tmp_path: Path, tiny: Bundle, own_cache: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, model = shared / "video" / "two-people.mp4", shared / "models" / YUNET_FILE
    if not clip.is_file() or not model.is_file():
        pytest.skip(f"needs {clip.name} and {YUNET_FILE} in the shared data")
    monkeypatch.setenv("FER_MODELS", str(model.parent))
    run_live(str(clip), tiny, "yunet", 150, tmp_path / "session.csv")


def test_the_command_checks_a_log_and_names_the_first_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "session.csv"
    live = log_scene(file)
    assert main([str(file), "--check"]) == 0
    told = capsys.readouterr().out
    assert f"{len(live)} frames" in told and "same to the last bit" in told
    text = file.read_text().splitlines()
    label = COLUMNS.index("label")
    for number in (200, 250):
        columns = text[number].split(",")
        columns[label] = "disgust" if columns[label] != "disgust" else "fear"
        text[number] = ",".join(columns)
    file.write_text("\n".join(text) + "\n")
    assert main([str(file), "--check"]) == 1
    sequence, track = text[200].split(",")[0], text[200].split(",")[COLUMNS.index("track")]
    assert f"not the same: frame {sequence}, face {track}: label is" in capsys.readouterr().out
    assert main([str(file)]) == 0, "without --check it only computes"


@pytest.mark.parametrize("name", SHOWN)
def test_no_column_is_left_unchecked(tmp_path: Path, name: str) -> None:
    file = tmp_path / "session.csv"
    log_scene(file)
    session = read_session(file)
    (again, _), *_ = replay(session.frames[1:2], SETTINGS)
    (face, *_) = again.faces
    other = 0.123 if name in ("confidence", "held_s") else "neutral?"
    write(file, [replace(again, faces=(replace(face, **{name: other}),))],
          smoothing=asdict(SETTINGS))  # fmt: skip
    assert main([str(file), "--check"]) == 1


def test_faces_whose_beginning_was_deleted_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = SessionLog(
        tmp_path / "session.csv", {"smoothing": asdict(SETTINGS)}, Limits(50_000, 10**9, 1e9, 5)
    )
    for result in scene():
        log.write(result)
    log.close()
    assert main([str(tmp_path / "session.csv"), "--check"]) == 0
    assert "not compared" not in capsys.readouterr().out
    (tmp_path / "session.csv").unlink()
    assert main([str(log.file), "--check"]) == 0
    assert "were not compared" in capsys.readouterr().out


def test_other_settings_show_what_would_have_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "session.csv", tmp_path / "other.csv"
    log_scene(file)

    def flips(*arguments: str) -> int:
        assert main([str(file), "--out", str(out), *arguments]) == 0
        changes = int(capsys.readouterr().out.split(" label changes")[0].split()[-1])
        assert main([str(out), "--check"]) == 0, "what is written is a session like any other"
        capsys.readouterr()
        return changes

    as_logged = flips()
    assert out.read_text() == file.read_text()
    assert flips("--tau-s", "0", "--hysteresis", "0") > as_logged > flips("--dwell-s", "5")
    assert read_session(out).settings() == replace(SETTINGS, dwell_s=5.0)
    flips("--smoothing", "plan", "--hysteresis", "0.2")
    found = read_session(out).settings()
    assert (found.vote_s, found.hysteresis) == (pytest.approx(5 / 30), 0.2)
    assert found.thresholds == SETTINGS.thresholds
    profile = tmp_path / "box.toml"
    profile.write_text("[smoothing]\ntau_s = 0.7\nabstain_threshold = 0.3\n")
    flips("--profile", str(profile))
    found = read_session(out).settings()
    assert (found.tau_s, found.thresholds) == (0.7, (0.3, 0.3, 0.3, 0.3, 0.5, 0.3, 0.3))


def test_mistakes_are_told(tmp_path: Path) -> None:
    file = tmp_path / "session.csv"
    log_scene(file)
    empty, foreign = tmp_path / "empty.csv", tmp_path / "foreign.csv"
    write(empty, [], smoothing=asdict(SETTINGS))
    write(foreign, scene(3))
    for arguments, says in (
        ([str(empty)], "no frame was logged"),
        ([str(foreign)], "does not hold the settings"),
        ([str(file), "--check", "--tau-s", "1"], "--check compares with the log"),
        ([str(file), "--tau-s", "-1"], "flags: tau_s: input should be greater than"),
        ([str(file), "--smoothing", "clam"], "--smoothing"),
        ([str(file), "--out", str(file)], "that is the session itself"),
        ([str(tmp_path / "none.csv")], "cannot be read"),
    ):
        with pytest.raises(UserError) as error:
            main(arguments)
        assert says in str(error.value)
    write(foreign, scene(3), smoothing=asdict(SETTINGS))
    with pytest.raises(UserError, match="thresholds of its bundle"):
        main([str(foreign), "--abstain-threshold", "0.5"])
