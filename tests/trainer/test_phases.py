"""The declared phases: that they can be read, and say what the study says."""

from pathlib import Path

import pytest
import timm

from tests.trainer.tiny import make_manifest, make_phase
from trainer.config import TrainConfig
from trainer.phase_files import load_phase, phase_names

RIVALS = {
    "focal_kd": {"focal_gamma": 1.5, "focal_weight": 0.25},
    "class_balanced_alpha": {"class_alpha": {"angry": 0.6}, "alpha": 0.5},
    "temperature_schedule": {"temperature_by_epoch": (3.0, 2.75, 2.5, 2.25, 2.0)},
    "attention_transfer": {"attention_weight": 0.1},
    "similarity_preserving": {"similarity_weight": 1000.0},
    "logit_standardisation": {"standardise": True},
}


def phase(name: str) -> TrainConfig:
    return load_phase(name, [])


@pytest.mark.parametrize("name", phase_names())
def test_every_phase_is_valid_and_describes_itself(name: str) -> None:
    config = phase(name)
    assert config.phase == name
    assert config.description
    assert timm.is_model(config.model.backbone)
    assert not config.model.pretrained, "ImageNet weights cannot be had everywhere"


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("teacher_rn18", "resnet18"),
        ("teacher_b3", "tf_efficientnet_b3"),
        ("teacher_cnxt", "convnext_tiny"),
    ],
)
def test_teachers_are_the_studys(name: str, backbone: str) -> None:
    config = phase(name)
    assert config.model.backbone == backbone
    assert config.model.arcface is not None
    assert (config.model.arcface.margin, config.model.arcface.scale) == (0.35, 30.0)
    assert (config.input.size, config.input.clahe) == (224, True)
    optim = config.optim
    assert (optim.lr, optim.min_lr, optim.weight_decay, optim.epochs) == (3e-4, 1e-5, 0.05, 60)
    assert optim.batch_size * optim.accum_steps == 64


def test_students_are_the_studys() -> None:
    kd, dkd, control = phase("student_kd"), phase("student_dkd"), phase("student_dkd_beta2")
    assert (kd.distill.method, kd.distill.temperature, kd.distill.alpha) == ("kd", 2.0, 0.5)
    assert (kd.start.phase, kd.optim.epochs) == ("student_ce", 20)
    assert (dkd.distill.method, dkd.distill.temperature, dkd.distill.alpha) == ("dkd", 2.0, 0.5)
    assert (dkd.distill.beta, dkd.distill.ce_weight) == (4.0, None)
    assert (dkd.start.phase, dkd.optim.epochs) == ("student_kd", 10)
    changed = control.distill.model_copy(update={"beta": 4.0})
    assert control.distill.beta == 2.0
    assert changed == dkd.distill
    assert control.optim == dkd.optim


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_differs_from_kd_in_its_idea_alone(name: str) -> None:
    rival, kd = phase(name), phase("student_kd")
    assert rival.distill == kd.distill.model_copy(update=RIVALS[name])
    for section in ("optim", "start", "augment", "model", "input", "target"):
        assert getattr(rival, section) == getattr(kd, section)


def test_the_focal_rival_of_dkd_differs_from_it_in_its_idea_alone() -> None:
    rival, dkd = phase("dkd_focal_nckd"), phase("student_dkd")
    assert rival.distill == dkd.distill.model_copy(update={"focal_nckd": True})
    assert rival.optim == dkd.optim


@pytest.mark.parametrize("text", ["[distill]\nalpha = 1.5\n", "[distill]\nclass_alpha = {x = 1}\n"])
def test_a_wrong_value_is_one_line(tmp_path: Path, text: str) -> None:
    from contract.errors import UserError

    make_manifest(tmp_path, {"train": 2})
    file = make_phase(tmp_path)
    file.write_text(file.read_text() + text)
    with pytest.raises(UserError, match="distill") as raised:
        load_phase(str(file), [])
    assert "\n" not in str(raised.value)
