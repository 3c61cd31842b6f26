"""Labels of several faces: poor moments are no changes of mind, and nothing is kept too long."""

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.expressions import EXPRESSIONS, LOW_QUALITY
from edge.labels import FaceEvidence, Labels, settings_from
from edge.smooth import Smoother, SmoothingSettings
from firmware_config.profile import SmoothingConfig
from tests.edge.results import SECOND, peaked

SETTINGS = SmoothingSettings(0.25, 0.1, (0.4,) * 7, quality_grace_s=0.5)
TENTH = SECOND // 10


def good(name: str, track: int = 1) -> FaceEvidence:
    return FaceEvidence(track, np.array(peaked(name, 0.9)))


def poor(track: int = 1) -> FaceEvidence:
    return FaceEvidence(track, None, "too dark")


def test_a_face_that_is_always_good_shows_what_its_smoother_says() -> None:
    labels, smoother = Labels(SETTINGS), Smoother(SETTINGS)
    rng = np.random.default_rng(4)
    for k in range(200):
        p: NDArray[np.float64] = rng.dirichlet(np.ones(7) * 0.2)
        (shown,) = labels.update([FaceEvidence(1, p)], {1}, k * TENTH)
        assert shown == smoother.update(p, k * TENTH)
        assert labels.flips == shown.flipped


def test_a_poor_moment_keeps_the_label_and_a_longer_one_shows_as_low_quality() -> None:
    labels = Labels(SETTINGS)
    seen = []
    for k in range(20):
        face = good("happy") if k < 3 or k >= 12 else poor()
        (shown,) = labels.update([face], {1}, k * TENTH)
        seen.append((shown.label, round(shown.held_s, 6), labels.flips))
    # Poor from 0.3 s on; half a second of it is let pass.
    assert [label for label, _, _ in seen] == ["happy"] * 8 + [LOW_QUALITY] * 4 + ["happy"] * 8
    assert [k for k, (_, _, flips) in enumerate(seen) if flips] == [8, 12]
    assert [held for _, held, _ in seen[6:14]] == [0.6, 0.7, 0.0, 0.1, 0.2, 0.3, 0.0, 0.1]


def test_a_poor_face_takes_no_part_in_its_average_and_goes_on_where_it_was() -> None:
    labels = Labels(SETTINGS)
    (before,) = labels.update([good("sad")], {1}, 0)
    for k in range(1, 31):
        (shown,) = labels.update([poor()], {1}, k * TENTH)
        assert (shown.smoothed, shown.top, shown.confidence) == (before.smoothed, "sad", 0.9)
    (after,) = labels.update([good("happy")], {1}, 31 * TENTH)
    # One frame of 0.1 s against what was before, however long the poor time.
    assert after.smoothed[EXPRESSIONS.index("sad")] == pytest.approx(
        0.9 * np.exp(-0.4) + 0.1 / 6 * (1 - np.exp(-0.4))
    )
    assert after.label == "sad"


def test_a_face_that_was_never_good_shows_as_low_quality_at_once() -> None:
    labels = Labels(SETTINGS)
    (shown,) = labels.update([poor()], {1}, 0)
    assert (shown.label, shown.confidence, len(shown.smoothed)) == (LOW_QUALITY, 0.0, 7)
    (shown,) = labels.update([good("fear")], {1}, SECOND)
    assert (shown.label, shown.smoothed, labels.flips) == ("fear", peaked("fear", 0.9), 1)


def test_faces_do_not_mix_and_come_in_their_order() -> None:
    labels = Labels(SETTINGS)
    for k in range(10):
        faces = [good("happy", 7), poor(3), good("sad", 5)]
        shown = labels.update(faces, {3, 5, 7}, k * TENTH)
    assert [face.label for face in shown] == ["happy", LOW_QUALITY, "sad"]


def test_the_state_of_a_face_ends_with_its_track_and_not_before() -> None:
    labels = Labels(SETTINGS)
    labels.update([good("happy")], {1}, 0)
    labels.update([], {1}, SECOND)
    (kept,) = labels.update([good("happy")], {1}, 2 * SECOND)
    assert kept.held_s == 2.0
    labels.update([], set(), 3 * SECOND)
    (new,) = labels.update([good("sad")], {1}, 4 * SECOND)
    assert (new.label, new.held_s, new.smoothed) == ("sad", 0.0, peaked("sad", 0.9))
    assert labels.flips == 0


def test_other_settings_take_over_and_no_face_starts_anew() -> None:
    labels = Labels(SETTINGS)
    labels.update([good("happy"), good("sad", 2)], {1, 2}, 0)
    labels.change(SmoothingSettings(0.0, 0.0, (0.4,) * 7, quality_grace_s=0.0))
    # Without a time constant the newest frame is all there is, and poor ones are told at once.
    shown = labels.update([good("fear"), poor(2)], {1, 2}, TENTH)
    assert [face.label for face in shown] == ["fear", LOW_QUALITY]
    assert shown[0].smoothed == pytest.approx(peaked("fear")) and shown[0].flipped
    assert shown[1].smoothed == peaked("sad"), "what was known of it is still known"
    labels.change(SETTINGS)
    (held,) = labels.update([good("fear")], {1}, 11 * TENTH)
    assert (held.label, held.held_s) == ("fear", 1.0)
    (new,) = labels.update([good("angry", 3)], {3}, 12 * TENTH)
    assert new.label == "angry", "who comes later is smoothed by them too"


def test_the_same_settings_again_change_nothing() -> None:
    settings = SmoothingSettings(0.25, 0.1, (0.4,) * 7, dwell_s=0.3, vote_s=0.2)
    labels, never_touched = Labels(settings), Labels(settings)
    rng = np.random.default_rng(5)
    for k in range(200):
        face = FaceEvidence(1, rng.dirichlet(np.ones(7) * 0.2) if k % 7 else None, "")
        assert labels.update([face], {1}, k * TENTH) == never_touched.update([face], {1}, k * TENTH)
        labels.change(settings)


def test_a_profile_and_the_thresholds_of_a_bundle_make_the_settings() -> None:
    config = SmoothingConfig(
        tau_s=0.3, hysteresis=0.2, dwell_s=0.7, vote_s=0.1, quality_grace_s=0.9, evidence_s=0.05
    )
    found = settings_from(config, 0.45, {"fear": 0.6, "sad": 0.3})
    thresholds = (0.45, 0.45, 0.6, 0.45, 0.45, 0.45, 0.45)
    assert found == SmoothingSettings(0.3, 0.2, thresholds, 0.7, 0.1, 0.9, 0.05)
    own = config.model_copy(update={"abstain_threshold": 0.2})
    assert settings_from(own, 0.45, {"sad": 0.3}).thresholds == (0.2, 0.2, 0.2, 0.2, 0.3, 0.2, 0.2)
