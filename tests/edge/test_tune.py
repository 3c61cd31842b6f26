"""Tuning on a signal of which the best setting is known, through the box's own smoothing."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from contract.bundle import Bundle
from contract.errors import UserError
from edge.cli import main
from edge.labels import settings_from
from edge.offline.score_figures import count, score
from edge.offline.score_labels import Segment
from edge.offline.session_log import LoggedFace, Session, SessionFrame
from edge.offline.tune import Trial, choose, pareto, relabel, run_trials
from firmware_config.profile import SmoothingConfig, load_profile
from tests.edge.results import SECOND, peaked
from tests.models import make_images

FPS = 10
CONFIG = SmoothingConfig(abstain_threshold=0.0)


def logged(tops: list[str], share: float = 0.6) -> Session:
    """A face that is `tops` frame by frame, at 10 frames per second."""
    frames = [
        SessionFrame(
            k, k * SECOND // FPS, k * SECOND // FPS, 640, 480, True,
            (LoggedFace(1, (0, 0, 100, 100), 1.0, "", np.array(peaked(top, share)), "", top, share,
                        0.0),),
            {}, 1.0,
        )
        for k, top in enumerate(tops)
    ]  # fmt: skip
    return Session({}, frames)


# Happy for 4 s, then sad for 4 s, with one wrong frame every second.
NOISY = [("fear" if k % 10 == 7 else "happy") for k in range(40)]
NOISY += [("fear" if k % 10 == 7 else "sad") for k in range(40)]
TRUTH = (Segment(0, 4, "happy"), Segment(4, 8, "sad"))


@pytest.fixture(scope="module")
def trials(tiny: Bundle) -> list[Trial]:
    return run_trials([(logged(NOISY), TRUTH)], CONFIG, tiny, 0.4)


def test_what_is_chosen_removes_the_noise_and_keeps_the_lag(trials: list[Trial]) -> None:
    raw = trials[0].score.raw
    # Eight wrong frames, in and out again.
    assert raw.flips == 17 and raw.held_flips_per_minute == pytest.approx(16 / 8 * 60)
    chosen = choose(trials, 0.4)
    assert chosen is not None
    assert chosen.flips == 0 and chosen.lag_s <= 0.4
    assert chosen.score.smoothed.macro_f1 == 1.0 > (raw.macro_f1 or 0)
    # A lone frame has 0.1 s: without an average, a lead to make up or a dwell it must show.
    unsmoothed = [
        t for t in trials
        if not (t.config.tau_s or t.config.evidence_s or t.config.dwell_s or t.config.vote_s)
    ]  # fmt: skip
    assert unsmoothed and all(trial.flips > 0 for trial in unsmoothed)
    assert all(t.flips >= chosen.flips for t in trials)


def test_every_way_of_smoothing_is_tried(trials: list[Trial]) -> None:
    for name in ("tau_s", "hysteresis", "evidence_s", "dwell_s", "vote_s"):
        assert len({getattr(trial.config, name) for trial in trials}) >= 4, name
    assert len({trial.config for trial in trials}) == len(trials), "none twice"


def test_a_setting_that_answers_worse_than_raw_is_not_chosen() -> None:
    # A lone second of sad is over before it is shown: no flips, and a third of the time wrong.
    tops, truth = ["happy"] * 20 + ["sad"] * 10, (Segment(0, 2, "happy"), Segment(2, 3, "sad"))
    found = {}
    for dwell_s in (0.0, 10.0):
        config = CONFIG.model_copy(update={"tau_s": 0.0, "evidence_s": 0.0, "dwell_s": dwell_s})
        settings = settings_from(config, 0.0, {})
        found[dwell_s] = Trial(config, score(count(relabel(logged(tops), settings), truth)))
    assert choose([found[10.0]], 10.0) is None
    assert choose(list(found.values()), 10.0) is found[0.0]


def test_no_setting_is_chosen_where_none_keeps_the_bounds(trials: list[Trial]) -> None:
    assert choose(trials, -1.0) is None
    # Where the truth never shows there is no lag to be within bounds.
    never = score(count(relabel(logged(NOISY), settings_from(CONFIG, 0, {})),
                        (Segment(0, 4, "happy"), Segment(4, 8, "angry"))))  # fmt: skip
    assert never.smoothed.lag_median_s is None
    assert choose([Trial(CONFIG, never)], 100.0) is None


def test_no_setting_of_the_front_is_beaten_by_another(trials: list[Trial]) -> None:
    front = pareto(trials)
    assert [t.flips for t in front] == sorted(t.flips for t in front)
    for one in front:
        for other in trials:
            no_worse = (
                other.flips <= one.flips
                and other.lag_s <= one.lag_s
                and other.macro_f1 >= one.macro_f1
            )
            better = (other.flips, other.lag_s, other.macro_f1) != (
                one.flips, one.lag_s, one.macro_f1,
            )  # fmt: skip
            assert not (no_worse and better)


def test_a_log_replayed_without_smoothing_shows_its_raw_tops() -> None:
    config = SmoothingConfig(tau_s=0, hysteresis=0, evidence_s=0, abstain_threshold=0.0)
    seen = relabel(logged(NOISY), settings_from(config, 0.0, {}))
    assert [frame.label for frame in seen] == [frame.raw for frame in seen] == NOISY
    assert score(count(seen, TRUTH)).smoothed.held_flips_per_minute == pytest.approx(120)


def built(tmp_path: Path, split: str) -> Path:
    manifest = make_images(tmp_path / split, per_class=1, split=split)
    given = [
        "--manifest",
        str(manifest),
        "--split",
        split,
        "--seconds",
        "6",
        "--fps",
        "10",
        "--any-face",
    ]
    assert main(["sessions", "build", *given, "--out", str(tmp_path)]) == 0
    return tmp_path / f"{split}-1"


@pytest.mark.parametrize("split", ["val", "test"])
def test_what_figures_are_reported_on_is_not_tuned_on(split: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"was built from {split} rows"):
        main(["tune", str(built(tmp_path, split)), "--out", str(tmp_path / "new.toml")])
    assert not (tmp_path / "new.toml").exists()


def test_a_profile_is_written_once_and_is_one(
    tmp_path: Path, tiny: Bundle, own_cache: Path, always_a_face: None
) -> None:
    session, out = built(tmp_path, "calib"), tmp_path / "tuned.toml"
    # Frames at 10 per second: a switch is seen up to one frame after it is due.
    arguments = ["tune", str(session), "--out", str(out), "--model", str(tiny.folder)]
    assert main([*arguments, "--max-lag", "1.5"]) == 0
    smoothing = tomllib.loads(out.read_text())["smoothing"]
    profile = load_profile(str(out), {})
    assert profile.smoothing.tau_s == smoothing["tau_s"]
    assert "calib-1  calib" in out.read_text() and tiny.sha256[:12] in out.read_text()
    assert (session / "session.csv").exists()
    with pytest.raises(UserError, match="exists; name a new file"):
        main(arguments)


def test_a_session_without_labels_is_named(tmp_path: Path) -> None:
    session = built(tmp_path, "calib")
    (session / "labels.csv").unlink()
    with pytest.raises(UserError, match=r"calib-1 has no labels\.csv"):
        main(["tune", str(session), "--out", str(tmp_path / "new.toml")])
