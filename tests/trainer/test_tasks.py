"""Tasks: which loss a phase's settings ask for, and that a student sees what its teachers saw."""

from typing import Any

import pytest
import torch
from torch import nn

from contract.expressions import INDEX
from trainer.backbones import Features
from trainer.config import ArcFaceConfig, DistillConfig
from trainer.data.augment import draw
from trainer.losses import distill as losses
from trainer.losses.feature import attention_map, attention_transfer, similarity_preserving
from trainer.losses.margin import arcface_logits
from trainer.softlabels_store import SoftLabels
from trainer.tasks import Batch, DistillTask, LabelTask

ROWS, VIEWS = 40, 3
GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(ROWS) % 7
TARGETS = nn.functional.one_hot(LABELS, 7).float()
SOFT = SoftLabels(
    clean=torch.randn(ROWS, 7, generator=GENERATOR),
    views=torch.randn(ROWS, VIEWS, 7, generator=GENERATOR),
    attention=torch.rand(ROWS, VIEWS, 4, generator=GENERATOR).half(),
    embedding=torch.randn(ROWS, VIEWS, 5, generator=GENERATOR).half(),
    seed=11,
    temperature=1.0,
    sha256="",
)
LOGITS = torch.randn(8, 7, generator=GENERATOR)
FEATURES = Features(
    torch.rand(8, 6, 5, 5, generator=GENERATOR), torch.randn(8, 9, generator=GENERATOR)
)


class Fixed(nn.Module):
    """Says the same of every batch."""

    def forward(self, images: torch.Tensor, with_features: bool = False) -> Any:
        return (LOGITS, FEATURES) if with_features else LOGITS


def task(**given: Any) -> DistillTask:
    config = DistillConfig.model_validate({"method": "kd", **given})
    return DistillTask(config, TARGETS, LABELS, SOFT, "cpu")


def batch(epoch: int = 0, progress: float | None = None, rows: slice = slice(5, 13)) -> Batch:
    numbers = torch.arange(ROWS)[rows]
    shown = float(epoch) if progress is None else progress
    return Batch(torch.zeros(len(numbers), 1, 8, 8), numbers, epoch, shown)


def loss(given: DistillTask, at: Batch) -> float:
    return float(given.loss(Fixed(), at)[0])


def terms(epoch: int = 0, temperature: float = 2.0) -> dict[str, torch.Tensor]:
    rows = batch().rows
    teacher = SOFT.views[rows, (rows + epoch) % VIEWS]
    tckd, nckd = losses.dkd_parts(LOGITS, teacher, LABELS[rows], temperature)
    return {
        "ce": losses.soft_cross_entropy_rows(LOGITS, TARGETS[rows]),
        "kd": losses.kd(LOGITS, teacher, temperature),
        "tckd": tckd,
        "nckd": nckd,
        "teacher": teacher,
        "labels": LABELS[rows],
    }


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_the_view_of_a_row_comes_with_the_answer_to_that_view(epoch: int) -> None:
    student, rows = task(), batch().rows
    draws = student.draws(rows, epoch)
    assert draws is not None
    tables = [draw(ROWS, SOFT.seed, view) for view in range(VIEWS)]
    for position, row in enumerate(rows.tolist()):
        found = [view for view in range(VIEWS) if torch.equal(tables[view][row], draws[position])]
        assert len(found) == 1
        expected = SOFT.views[row, found[0]]
        assert torch.equal(student.teacher(batch(epoch))[position], expected)


def test_over_the_epochs_a_row_is_seen_in_every_view() -> None:
    student = task()
    seen = {
        tuple(student.draws(torch.tensor([4]), epoch)[0].tolist())  # type: ignore[index]
        for epoch in range(VIEWS)
    }
    assert len(seen) == VIEWS


def test_clean_softlabels_leave_the_augmentation_free() -> None:
    student = task(views="clean")
    assert student.draws(torch.arange(5), 0) is None
    assert torch.equal(student.teacher(batch()), SOFT.clean[5:13])


def test_kd_is_the_weighted_sum() -> None:
    t = terms()
    expected = 0.5 * t["ce"].mean() + 0.5 * t["kd"].mean()
    assert loss(task(), batch()) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(("ce_weight", "counted"), [(None, 0.5), (1.0, 1.0)])
def test_dkd_is_the_weighted_sum(ce_weight: float | None, counted: float) -> None:
    t = terms()
    expected = (counted * t["ce"] + 0.5 * t["tckd"] + 4 * t["nckd"]).mean()
    found = loss(task(method="dkd", beta=4.0, ce_weight=ce_weight), batch())
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_focal_nckd_counts_hard_faces_more() -> None:
    t = terms()
    p = torch.softmax(LOGITS, 1)[torch.arange(8), t["labels"]]
    expected = (0.5 * t["ce"] + 0.5 * t["tckd"] + 4 * (1 - p) ** 1.5 * t["nckd"]).mean()
    found = loss(task(method="dkd", focal_nckd=True, focal_gamma=1.5), batch())
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_focal_kd_adds_its_term() -> None:
    t = terms()
    p = torch.softmax(LOGITS, 1)[torch.arange(8), t["labels"]]
    expected = (0.5 * t["ce"] + 0.5 * t["kd"] + 0.25 * (1 - p) ** 1.5 * t["ce"]).mean()
    found = loss(task(focal_weight=0.25, focal_gamma=1.5), batch())
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_a_class_may_follow_its_teachers_more() -> None:
    t = terms()
    alpha = torch.where(t["labels"] == INDEX["angry"], 0.9, 0.5)
    expected = ((1 - alpha) * t["ce"] + alpha * t["kd"]).mean()
    assert loss(task(class_alpha={"angry": 0.9}), batch()) == pytest.approx(
        float(expected), rel=1e-6
    )


@pytest.mark.parametrize(("epoch", "alpha"), [(0, 0.3), (1, 0.4), (2, 0.5), (9, 0.5)])
def test_alpha_ramps_by_epoch(epoch: int, alpha: float) -> None:
    t = terms(epoch)
    expected = ((1 - alpha) * t["ce"] + alpha * t["kd"]).mean()
    found = loss(task(alpha=0.5, alpha_by_epoch=[0.3, 0.4]), batch(epoch))
    assert found == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(("epoch", "temperature"), [(0, 3.0), (1, 2.5), (2, 2.0)])
def test_the_temperature_falls_by_epoch(epoch: int, temperature: float) -> None:
    t = terms(epoch, temperature)
    expected = (0.5 * t["ce"] + 0.5 * t["kd"]).mean()
    found = loss(task(temperature=2.0, temperature_by_epoch=[3.0, 2.5]), batch(epoch))
    assert found == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (1.0, 0.25), (4.0, 1.0), (8.0, 1.0)])
def test_a_warm_up_lets_the_softened_terms_rise(progress: float, share: float) -> None:
    t = terms(int(progress))
    expected = (0.5 * t["ce"] + share * (0.5 * t["tckd"] + 4 * t["nckd"])).mean()
    found = loss(task(method="dkd", warmup_epochs=4.0), batch(int(progress), progress))
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_standardised_logits_are_what_is_softened() -> None:
    t = terms()
    soft = losses.kd(losses.standardise(LOGITS), losses.standardise(t["teacher"]), 2.0)
    expected = (0.5 * t["ce"] + 0.5 * soft).mean()
    assert loss(task(standardise=True), batch()) == pytest.approx(float(expected), rel=1e-6)


def test_features_add_their_weighted_terms() -> None:
    rows = batch().rows
    stored = SOFT.attention, SOFT.embedding
    assert stored[0] is not None
    assert stored[1] is not None
    maps, embeddings = (s[rows, rows % VIEWS].float() for s in stored)
    attention = attention_transfer(attention_map(FEATURES.map, 2), maps).mean()
    similarity = similarity_preserving(FEATURES.embedding, embeddings)
    plain = loss(task(), batch())
    found = loss(task(attention_weight=0.1, similarity_weight=3.0), batch())
    assert found == pytest.approx(plain + float(0.1 * attention + 3 * similarity), rel=1e-5)


def test_the_history_gets_every_term() -> None:
    _, parts = task(method="dkd", focal_weight=0.25, attention_weight=0.1).loss(Fixed(), batch())
    assert set(parts) == {"ce", "tckd", "nckd", "focal", "attention"}
    assert not any(part.requires_grad for part in parts.values())


def test_a_class_that_is_no_expression_is_refused() -> None:
    with pytest.raises(ValueError, match="class_alpha names 'anger'"):
        task(class_alpha={"anger": 0.6})


@pytest.mark.parametrize(("progress", "margin"), [(0.0, 0.0), (5.0, 0.2), (9.0, 0.4)])
def test_the_margin_is_there_in_training_alone(progress: float, margin: float) -> None:
    face = ArcFaceConfig(margin=0.4, scale=30.0, warmup_epochs=3, ramp_epochs=4)
    cosine = torch.tanh(LOGITS)

    class Cosines(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 30 * cosine

    at = batch(int(progress), progress)
    labels = LABELS[at.rows]
    expected = nn.functional.cross_entropy(
        arcface_logits(cosine, labels, margin, 30.0, False), labels
    )
    found, _ = LabelTask(TARGETS, LABELS, face).loss(Cosines(), at)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
