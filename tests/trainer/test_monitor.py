"""Signs of trouble: each where it should be said, and not elsewhere."""

import math

import pytest

from trainer.monitor import warnings

Line = dict[str, float]


def lines(count: int, **values: list[float] | float) -> list[Line]:
    """A calm history of `count` epochs; a list gives a value to each epoch."""
    made = []
    for epoch in range(count):
        calm = {
            "epoch": float(epoch), "loss": 1.0, "grad_norm_max": 5.0, "guarded_steps": 0.0,
            "steps": 100.0, "calib_minority_f1": 0.5, "calib_ece": 0.1 / (epoch + 1),
        }  # fmt: skip
        own = {k: v[epoch] if isinstance(v, list) else v for k, v in values.items()}
        made.append(calm | own)
    return made


def test_a_calm_training_says_nothing() -> None:
    for count in range(20):
        assert warnings(lines(count)) == []


@pytest.mark.parametrize(("norm", "said"), [(100.0, 0), (101.0, 1), (math.nan, 1), (math.inf, 1)])
def test_a_spike_of_the_gradient_is_said(norm: float, said: int) -> None:
    found = warnings(lines(3, grad_norm_max=[5.0, 5.0, norm]))
    assert len(found) == said
    assert all("negative.ratio" in each for each in found)
    assert warnings(lines(3, grad_norm_max=[norm, 5.0, 5.0])) == [], "of this epoch alone"


@pytest.mark.parametrize(("guarded", "said"), [(10.0, 0), (11.0, 1)])
def test_a_guard_that_skips_a_tenth_of_the_steps_is_said(guarded: float, said: int) -> None:
    found = warnings(lines(2, guarded_steps=[0.0, guarded]))
    assert len(found) == said
    assert all("distill.temperature_by_epoch" in each for each in found)


def test_forgetting_is_said_once_when_it_shows() -> None:
    """0.50 until epoch 10; then means of three of 0.487, 0.473 (a fall of 0.027) …"""
    f1 = [0.5] * 12 + [0.46] * 5
    said = [count for count in range(17) if warnings(lines(count, calib_minority_f1=f1))]
    assert said == [14]


def test_before_epoch_ten_a_fall_is_no_forgetting() -> None:
    f1 = [0.6] * 5 + [0.3] * 7
    assert all(not warnings(lines(count, calib_minority_f1=f1)) for count in range(13))


def test_a_plateau_is_said_once_when_it_shows() -> None:
    """The best is the third epoch's; five epochs later, the eighth, it is said."""
    ece = [0.10, 0.08, 0.05, 0.06, 0.055, 0.06, 0.07, 0.06, 0.06, 0.06, 0.04, 0.06]
    said = [count for count in range(13) if warnings(lines(count, calib_ece=ece))]
    assert said == [8]
    (told,) = warnings(lines(8, calib_ece=ece))
    assert "target.label_smoothing=0.05" in told


def test_figures_that_are_not_there_say_nothing() -> None:
    assert warnings([{"epoch": 0.0, "loss": 1.0}] * 30) == []
