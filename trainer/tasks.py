"""What is learnt: tasks that own targets and loss, for one loop that knows neither."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer import schedules
from trainer.backbones import Features
from trainer.config import ArcFaceConfig, DistillConfig
from trainer.data.augment import draw
from trainer.losses import distill as losses
from trainer.losses.feature import attention_map, attention_transfer, similarity_preserving
from trainer.losses.margin import arcface_logits
from trainer.softlabels_store import SoftLabels


@dataclass(frozen=True)
class Batch:
    """Augmented images (`N×C×H×W`, 0…255) of training rows (`N` numbers, from 0).

    `epoch` counts from 0; `progress` is the same with the share of the epoch done. `step` is the
    optimiser step, and `piece` tells its forward passes apart, over all processes.
    """

    images: Tensor
    rows: Tensor
    epoch: int
    progress: float
    step: int = 0
    piece: int = 0


Loss = tuple[Tensor, dict[str, Tensor]]
"""The mean loss of a batch, and its parts for the history (means as well, detached)."""


class Task:
    """What the loop asks of a task. Only the loss has no default."""

    def draws(self, rows: Tensor, epoch: int) -> Tensor | None:
        """The augmentation `N×DRAWS` that training rows must get, or None for a fresh one."""
        return None

    def begin_step(self) -> None:
        """A step begins, or begins again because memory ran out."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of a batch."""
        raise NotImplementedError

    def end_step(self, step: int) -> None:
        """All forward and backward passes of a step are done, the weights not yet changed."""

    def after_step(self) -> dict[str, Tensor]:
        """The weights have changed; more parts for the history, this process's share."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold besides the network."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`."""


class LabelTask(Task):
    """Cross-entropy against a target distribution, with ArcFace's margin if the head has one."""

    def __init__(self, targets: Tensor, labels: Tensor, arcface: ArcFaceConfig | None) -> None:
        self._targets, self._labels, self._arcface = targets, labels, arcface

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Mean cross-entropy."""
        logits = model(batch.images)
        if self._arcface is not None:
            face = self._arcface
            margin = schedules.margin(face, batch.progress)
            labels = self._labels[batch.rows]
            logits = arcface_logits(
                logits.float() / face.scale, labels, margin, face.scale, face.easy_margin
            )
        loss = losses.soft_cross_entropy(logits, self._targets[batch.rows])
        return loss, {}


class DistillTask(Task):
    """KD or DKD from softlabels, with the rivals' terms where their weights ask for them."""

    def __init__(
        self, config: DistillConfig, targets: Tensor, labels: Tensor, soft: SoftLabels,
        device: str,
    ) -> None:  # fmt: skip
        self._config, self._targets, self._labels = config, targets, labels
        self._device = device
        self._clean = soft.clean.to(device)
        self._stored = {
            name: stored.to(device)
            for name, stored in (
                ("views", soft.views),
                ("attention", soft.attention if config.attention_weight else None),
                ("embedding", soft.embedding if config.similarity_weight else None),
            )
            if stored is not None
        }
        count, views = soft.views.shape[:2]
        self._views = views if config.views == "seen" else 0
        self._tables = [draw(count, soft.seed, view) for view in range(self._views)]

    def _view(self, rows: Tensor, epoch: int) -> Tensor:
        return (rows + epoch) % self._views

    def draws(self, rows: Tensor, epoch: int) -> Tensor | None:
        """The draws of the view the teachers saw; neighbouring rows are at different views."""
        if not self._views:
            return None
        rows = rows.cpu()
        tables = torch.stack([table[rows] for table in self._tables])
        return tables[self._view(rows, epoch), torch.arange(len(rows))]

    def _of_view(self, name: str, batch: Batch) -> Tensor:
        return self._stored[name][batch.rows, self._view(batch.rows, batch.epoch)].float()

    def teacher(self, batch: Batch) -> Tensor:
        """The teachers' logits `N×7` for the views of a batch."""
        return self._of_view("views", batch) if self._views else self._clean[batch.rows]

    def rows_loss(
        self, logits: Tensor, teacher: Tensor, batch: Batch, weight: Tensor | float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each row `N` from logits `N×7`, and its parts, of each row as well.

        `weight`, one or of each row, is that of its softened terms.
        """
        config, labels = self._config, self._labels[batch.rows]
        general = schedules.by_epoch(config.alpha_by_epoch, config.alpha, batch.epoch)
        alpha = losses.class_alpha(labels, general, config.class_alpha)
        temperature = schedules.by_epoch(
            config.temperature_by_epoch, config.temperature, batch.epoch
        )
        rise = weight * schedules.ramp(batch.progress, 0, config.warmup_epochs)
        ce = losses.soft_cross_entropy_rows(logits, self._targets[batch.rows])
        ce_weight = (1 - alpha) if config.ce_weight is None else config.ce_weight
        total, parts = ce_weight * ce, {"ce": ce}
        student, given = logits, teacher
        if config.standardise:
            student, given = losses.standardise(logits), losses.standardise(teacher)
        if config.method == "kd":
            parts["kd"] = losses.kd(student, given, temperature)
            total = total + rise * alpha * parts["kd"]
        else:
            tckd, nckd = losses.dkd_parts(student, given, labels, temperature)
            if config.focal_nckd:
                gamma = config.focal_gamma
                nckd = losses.focal_nckd(student, given, labels, temperature, gamma)
            parts |= {"tckd": tckd, "nckd": nckd}
            total = total + rise * (alpha * tckd + config.beta * nckd)
        if config.focal_weight:
            parts["focal"] = losses.focal_cross_entropy(
                logits, self._targets[batch.rows], config.focal_gamma
            )
            total = total + config.focal_weight * parts["focal"]
        return total, parts

    def _feature_terms(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """Weighted terms on features, scalars."""
        config, terms = self._config, {}
        if config.attention_weight:
            theirs = self._of_view("attention", batch)
            ours = attention_map(features.map, math.isqrt(theirs.shape[1]))
            terms["attention"] = config.attention_weight * attention_transfer(ours, theirs).mean()
        if config.similarity_weight:
            theirs = self._of_view("embedding", batch)
            similarity = similarity_preserving(features.embedding, theirs)
            terms["similarity"] = config.similarity_weight * similarity
        return terms

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Mean of the rows' losses, and the terms on features."""
        teacher = self.teacher(batch)
        if self._config.attention_weight or self._config.similarity_weight:
            logits, features = model(batch.images, with_features=True)
            extra = self._feature_terms(features, batch)
        else:
            logits, extra = model(batch.images), {}
        rows, parts = self.rows_loss(logits, teacher, batch)
        total = rows.mean()
        for term in extra.values():
            total = total + term
        means = {name: part.mean() for name, part in parts.items()} | extra
        return total, {name: value.detach() for name, value in means.items()}
