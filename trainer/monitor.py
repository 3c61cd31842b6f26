"""Signs of trouble in a running training, each with the remedy the study's plan gives it.

A pure function of the history's lines. What is measured afresh each epoch (gradient norm, loss
guard) warns whenever it is over its bound; a trend warns in the epoch in which it shows.
"""

import math
from collections.abc import Callable

Lines = list[dict[str, float]]

GRAD_NORM = 100.0
GUARDED_SHARE = 0.1
FORGETTING_AFTER = 10
"""Epochs whose minority F1 is the mark that later ones are held against."""
FORGOTTEN = 0.02
"""Fall of the minority F1, means of three epochs: one epoch's alone is mostly chance."""
PLATEAU_EPOCHS = 5


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _forgets(lines: Lines) -> bool:
    f1 = [line["calib_minority_f1"] for line in lines if "calib_minority_f1" in line]
    if len(f1) < FORGETTING_AFTER + 3:
        return False
    before = _mean(f1[FORGETTING_AFTER - 3 : FORGETTING_AFTER])
    return _mean(f1[-3:]) < before - FORGOTTEN


def _plateau(lines: Lines) -> bool:
    ece = [line["calib_ece"] for line in lines if "calib_ece" in line]
    if len(ece) <= PLATEAU_EPOCHS:
        return False
    return min(ece[-PLATEAU_EPOCHS:]) >= min(ece[:-PLATEAU_EPOCHS])


def _begins(shows: Callable[[Lines], bool], lines: Lines) -> bool:
    return shows(lines) and not shows(lines[:-1])


def warnings(lines: Lines) -> list[str]:
    """What to say after the last of these epochs, a line each; `lines` are of history.jsonl.

    A line without the figures a signal needs gives none of that signal.
    """
    if not lines:
        return []
    last, said = lines[-1], []
    norm = last.get("grad_norm_max", 0.0)
    if norm > GRAD_NORM or math.isnan(norm):
        said.append(
            f"gradient norm {norm:.0f} is above {GRAD_NORM:.0f}: lower negative.ratio or "
            "nested.meta_lr, or lower optim.clip_norm to cut it shorter"
        )
    steps, guarded = last.get("steps", 0.0), last.get("guarded_steps", 0.0)
    if steps and guarded / steps > GUARDED_SHARE:
        said.append(
            f"the loss guard skipped {guarded / steps:.0%} of the steps (above "
            f"{GUARDED_SHARE:.0%}): set distill.temperature_by_epoch=[3.0,2.75,2.5,2.25,2.0], or "
            "raise optim.loss_guard to 15"
        )
    if _begins(_forgets, lines):
        said.append(
            f"F1 of angry, disgust and fear on calib has fallen since epoch {FORGETTING_AFTER}: "
            "raise nested.slow_momentum (memory keeps longer), or optim.balance_power"
        )
    if _begins(_plateau, lines):
        said.append(
            f"ECE on calib has not improved for {PLATEAU_EPOCHS} epochs: raise negative.ratio "
            "(up to 0.15), or set target.label_smoothing=0.05"
        )
    return said
