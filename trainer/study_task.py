"""The study's student: distillation that nested learning weighs, with complementary labels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.backbones import Features, NormalisedClassifier
from trainer.config import TrainConfig
from trainer.distributed import world
from trainer.negative import Negative, confusion_of
from trainer.nested import Look, Nested, meta_draw
from trainer.predict import pixels
from trainer.softlabels_store import SoftLabels
from trainer.tasks import Batch, DistillTask, Loss


@dataclass(frozen=True)
class MetaRows:
    """Rows the gate learns on: `faces(positions)` are uint8 `M×H×W×C`, `labels` are of all."""

    faces: Callable[[Tensor], Tensor]
    labels: Tensor


@dataclass(frozen=True)
class _Probe:
    images: Tensor
    piece: int
    before: Tensor


def _still(network: NormalisedClassifier, images: Tensor) -> tuple[Tensor, Features]:
    """Logits and features as in use: no gradient, no dropout, running statistics untouched."""
    training = network.training
    network.eval()
    with torch.no_grad():
        found = network(images, with_features=True)
    network.train(training)
    assert isinstance(found, tuple)
    return found


class StudyTask(DistillTask):
    """`DistillTask` with the terms of `[negative]` and `[nested]`.

    `network` is the one in training; its head is what the gate's virtual step moves.
    """

    def __init__(
        self, config: TrainConfig, targets: Tensor, labels: Tensor, soft: SoftLabels, device: str,
        network: NormalisedClassifier, meta: MetaRows | None,
    ) -> None:  # fmt: skip
        super().__init__(config.distill, targets, labels, soft, device)
        self._network, self._meta, self._seed = network, meta, config.seed
        confusion = config.negative.confusion
        self._negative = (
            Negative(config.negative, config.seed, confusion_of(confusion) if confusion else None)
            if config.negative.enabled
            else None
        )
        self._nested = (
            Nested(config.nested, epochs=config.optim.epochs, seed=config.seed, device=device)
            if config.nested.enabled
            else None
        )
        self._meta_batch = config.nested.meta_batch
        self._probe: _Probe | None = None

    def begin_step(self) -> None:
        """Forget what a step that is done again had noted."""
        self._probe = None
        if self._nested is not None:
            self._nested.begin_step()

    def _learn_gate(
        self, nested: Nested, look: Look, embedding: Tensor, teacher: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        assert self._meta is not None
        chosen = meta_draw(self._meta.labels, self._meta_batch, self._seed, batch.step)
        faces = self._meta.faces(chosen)
        images = pixels(faces, self._device)
        _, features = _still(self._network, images)

        def rows_loss(logits: Tensor, weight: Tensor) -> Tensor:
            return self.rows_loss(logits, teacher, batch, weight)[0]

        found = nested.meta_step(
            self._network.classifier, embedding, rows_loss, look.signals, features.embedding,
            self._meta.labels[chosen].to(self._device),
        )  # fmt: skip
        return {**found, "meta_steps": torch.ones((), device=self._device)}

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Mean of the rows' losses, with what the study adds."""
        labels, teacher, nested = self._labels[batch.rows], self.teacher(batch), self._nested
        logits, features = model(batch.images, with_features=True)
        extra = self._feature_terms(features, batch)
        log: dict[str, Tensor] = {}
        weight: Tensor | float = 1.0
        look = None
        if nested is not None:
            look = nested.look(logits, teacher, labels, batch.progress)
            # Every process has as many pieces, and learns with the first of its own.
            if batch.piece < world() and nested.learns(batch.step, batch.progress):
                log |= self._learn_gate(nested, look, features.embedding, teacher, batch)
            nested.remember(logits, labels, look)
            log |= nested.parts(look)
            weight = look.weight
        rows, parts = self.rows_loss(logits, teacher, batch, weight)
        if self._negative is not None:
            term, found = self._negative.term(
                logits, labels, step=batch.step, epoch=batch.epoch, key=batch.piece,
                consistency=None if look is None else look.consistency, nckd=parts.get("nckd"),
            )  # fmt: skip
            rows = rows + term
            log |= found
            if batch.piece < world() and self._negative.probed(batch.step, batch.epoch):
                before = self._negative.mean_p(_still(self._network, batch.images)[0], batch.piece)
                self._probe = _Probe(batch.images, batch.piece, before)
        total = rows.mean()
        for term in extra.values():
            total = total + term
        means = {name: part.mean() for name, part in parts.items()} | extra | log
        return total, {name: value.detach() for name, value in means.items()}

    def end_step(self, step: int) -> None:
        """Update the memories."""
        if self._nested is not None:
            self._nested.end_step(step)

    def after_step(self) -> dict[str, Tensor]:
        """What the step did to p of the complementary classes, where it was looked at."""
        probe, self._probe = self._probe, None
        if probe is None or self._negative is None:
            return {}
        after = self._negative.mean_p(_still(self._network, probe.images)[0], probe.piece)
        share = 1 / world()
        return {
            "negl_probed": self._negative.applied(probe.piece) * share,
            "negl_p_before": probe.before * share,
            "negl_p_after": after * share,
        }

    def state(self) -> dict[str, Tensor]:
        """Memories, gate and its moments."""
        return {} if self._nested is None else self._nested.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`."""
        if self._nested is not None and state:
            self._nested.load_state(state)
