"""Negative learning: who gets a complementary label, which one, and what is logged of it.

Everything random is a function of the seed, the step and the piece of the step, so a resumed run
does what the uninterrupted one would have done, and the pieces of a step agree.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from contract.errors import UserError
from contract.expressions import EXPRESSIONS, INDEX
from contract.metrics import confusion_matrix
from trainer import schedules
from trainer.config_study import NegativeConfig
from trainer.data.augment import seed_of
from trainer.losses.negative import entropy, negative_loss, negative_nckd_loss
from trainer.predictions import load_predictions

# Sets these draws apart from the loop's, which are seeded by the same step and piece.
_STREAM = 2
_CLASSES = len(EXPRESSIONS)

PROBE_INTERVAL = 20
"""Steps between looks at what a step did, by `sample`; by `batch` each one that is drawn is."""


def confusion_of(file: Path) -> NDArray[np.int64]:
    """Confusion matrix `7×7` (truth in rows) of the calib rows of a `predictions.npz`.

    Calib, because targets are part of training, which val must not see. Raises `UserError` for a
    file that is missing or damaged, or has no calib rows.
    """
    calib = load_predictions(file).select("calib")
    if not len(calib):
        raise UserError(
            f"negative.confusion: {file} has no rows of split 'calib'; name the predictions.npz of "
            "a finished run"
        )
    return confusion_matrix(calib.labels, calib.logits.argmax(1), _CLASSES)


def _targets(config: NegativeConfig, confusion: NDArray[np.int64] | None) -> Tensor:
    """`7×7`: in the row of a label, how likely each class is to be the complementary one."""
    score = torch.zeros(_CLASSES, _CLASSES, dtype=torch.float64)
    if config.method == "targeted" and confusion is not None:
        score = torch.from_numpy(confusion).double()
    elif config.method == "targeted":
        for one, other in config.pairs:
            score[INDEX[one], INDEX[other]] = score[INDEX[other], INDEX[one]] = 1
    score.fill_diagonal_(-1)
    # The greatest off the diagonal; equals share, so a row without any is uniform.
    greatest = (score == score.max(1, keepdim=True).values).double()
    return greatest / greatest.sum(1, keepdim=True)


@dataclass(frozen=True)
class _Applied:
    """Complementary classes `N` of a piece, and where they were applied."""

    complementary: Tensor
    mask: Tensor


class Negative:
    """The term of negative learning and its log, for the pieces of a step.

    Ratio. An expression's ratio is its `class_ratio`, else `pair_ratio` if it is in `pairs`, else
    the epoch's `ratio`; an epoch whose `ratio` is 0 has no complementary labels at all. By
    `sample`, each row is drawn with its expression's ratio. By `batch`, a step is drawn with
    `ratio`, for all of its pieces, and all of its rows get a complementary label, except that
    expressions with a lower ratio are thinned to their ratio / `ratio`, row by row, so that their
    exposure is their ratio. Gates then take rows away: exposure is at most the ratio.

    Method. `uniform` draws any class but the label. `targeted` takes the partner in `pairs` or,
    given a confusion matrix, the class that faces of the label are most often taken for; equals
    are drawn evenly, and an expression without a partner or a confusion is uniform.

    Log, as means over all rows, so that they can be averaged over steps and then divided:
    `negl_applied`, the share of rows with a complementary label; `negl_rows_<expression>` and
    `negl_applied_<expression>`, the shares of rows which show it, and which show it and have one
    (their quotient is its exposure); `negl_loss` and `negl_p`, the loss (without `weight`) and the
    full softmax's p of the complementary class, 0 where there is none (divided by `negl_applied`,
    their means where there is one). `mean_p` and `applied` are for what a step does to p.
    """

    def __init__(
        self, config: NegativeConfig, seed: int, confusion: NDArray[np.int64] | None
    ) -> None:
        self._config, self._seed = config, seed
        # In float64, a sum of shares stays above every uniform float32.
        self._cumulative = _targets(config, confusion).cumsum(1)
        self._pieces: dict[int, _Applied] = {}

    def _ratios(self, general: float) -> list[float]:
        config = self._config
        if general == 0:
            return [0.0] * _CLASSES
        own: dict[str, float] = {}
        if config.pair_ratio is not None:
            own = {name: config.pair_ratio for pair in config.pairs for name in pair}
        own |= config.class_ratio
        return [own.get(name, general) for name in EXPRESSIONS]

    def _chances(self, step: int, epoch: int) -> list[float]:
        """How likely a row of each expression is to be drawn in this step."""
        config = self._config
        general = schedules.by_epoch(config.ratio_by_epoch, config.ratio, epoch)
        ratios = self._ratios(general)
        if config.unit == "sample":
            return ratios
        generator = torch.Generator().manual_seed(seed_of(self._seed, step, _STREAM))
        drawn = float(torch.rand((), generator=generator)) < general
        return [ratio / general if drawn else 0.0 for ratio in ratios]

    def _gates(
        self, logits: Tensor, consistency: Tensor | None, nckd: Tensor | None
    ) -> Tensor:  # fmt: skip
        """Rows `N` that meet every condition."""
        config = self._config
        passed = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        if "entropy" in config.gates:
            passed &= entropy(logits) > config.entropy_threshold
        if "consistency" in config.gates:
            if consistency is None:
                raise UserError(
                    "negative.gates: consistency is agreement with the memory of nested learning; "
                    "set nested.enabled=true in [nested], or leave the gate out"
                )
            passed &= consistency.detach() < config.consistency_threshold
        if "nckd" in config.gates:
            if nckd is None:
                raise UserError(
                    "negative.gates: nckd is a loss of distillation; set distill.method=dkd, or "
                    "leave the gate out"
                )
            count = math.floor(config.nckd_share * len(nckd) + 0.5)
            greatest = nckd.detach().argsort(descending=True, stable=True)[:count]
            passed &= torch.zeros_like(passed).index_fill(0, greatest, True)
        return passed

    def probed(self, step: int, epoch: int) -> bool:
        """Whether to look at what this step does to p: the same answer in every process."""
        some = any(self._chances(step, epoch))
        return some and (self._config.unit == "batch" or step % PROBE_INTERVAL == 0)

    def term(
        self, logits: Tensor, labels: Tensor, *, step: int, epoch: int, key: int,
        consistency: Tensor | None, nckd: Tensor | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """The weighted term of each row `N`, 0 where not applied, and the log of this piece.

        `logits` are `N×7`, `labels` `N`; `key` tells the pieces of a step apart, over all
        processes. `consistency` and `nckd` are `N`, for their gates; the top share of nckd is
        taken among these N rows. Raises `UserError` for a gate whose input is None.
        """
        config, seen = self._config, logits.detach()
        generator = torch.Generator().manual_seed(seed_of(self._seed, step, key, _STREAM))
        drawn, which = torch.rand(2, len(labels), generator=generator).to(labels.device)
        chances = torch.tensor(self._chances(step, epoch), device=labels.device)
        mask = (drawn < chances[labels]) & self._gates(seen, consistency, nckd)
        self._cumulative = self._cumulative.to(labels.device)
        complementary = (which[:, None] >= self._cumulative[labels]).sum(1)
        if config.nckd_only:
            loss = negative_nckd_loss(logits, labels, complementary)
        else:
            loss = negative_loss(logits, complementary)
        loss = torch.where(mask, loss, 0.0)

        self._pieces[key] = _Applied(complementary, mask)
        shows = F.one_hot(labels, _CLASSES).float()
        parts = {
            "negl_applied": mask.float().mean(),
            "negl_loss": loss.detach().mean(),
            "negl_p": self.mean_p(seen, key),
        }
        for name, rows, applied in zip(
            EXPRESSIONS, shows.mean(0), (mask[:, None] * shows).mean(0), strict=True
        ):
            parts |= {f"negl_rows_{name}": rows, f"negl_applied_{name}": applied}
        return config.weight * loss, parts

    def applied(self, key: int) -> Tensor:
        """Share of the rows of the latest piece `key` that got a complementary label."""
        return self._pieces[key].mask.float().mean()

    def mean_p(self, logits: Tensor, key: int) -> Tensor:
        """p of the complementary classes of the latest piece `key` by other logits of its rows.

        From `N×7` logits before and after the optimiser's step, of the same images in the same
        mode of the network, the difference is what the step did, all terms of its loss together.
        A mean over all rows like `negl_p`: divided by `applied`, that where there is a label.
        """
        piece = self._pieces[key]
        return (piece.mask * _of_class(logits.detach(), piece.complementary)).mean()


def _of_class(logits: Tensor, classes: Tensor) -> Tensor:
    return torch.softmax(logits.float(), dim=1).gather(1, classes[:, None]).squeeze(1)
