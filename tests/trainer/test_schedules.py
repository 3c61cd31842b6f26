"""Values by epoch and by progress."""

import pytest

from trainer.config import ArcFaceConfig
from trainer.schedules import by_epoch, margin, ramp


def test_the_first_epochs_have_values_of_their_own() -> None:
    assert [by_epoch([0.3, 0.4], 0.5, epoch) for epoch in range(4)] == [0.3, 0.4, 0.5, 0.5]
    assert by_epoch((), 2.0, 0) == 2.0


@pytest.mark.parametrize(
    ("progress", "expected"), [(0, 0), (2, 0), (3, 0.25), (4, 0.5), (6, 1), (60, 1)]
)
def test_a_ramp_by_hand(progress: float, expected: float) -> None:
    assert ramp(progress, 2, 4) == expected


def test_a_ramp_of_no_length_is_a_step() -> None:
    assert [ramp(p, 2, 0) for p in (1.9, 2, 3)] == [0, 1, 1]


def test_the_margin_waits_and_then_rises_to_its_value() -> None:
    config = ArcFaceConfig(margin=0.4, warmup_epochs=5, ramp_epochs=10)
    margins = [margin(config, progress) for progress in (0, 5, 10, 15, 59)]
    assert margins == pytest.approx([0, 0, 0.2, 0.4, 0.4])
