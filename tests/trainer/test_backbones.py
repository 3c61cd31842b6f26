"""Networks by name: normalisation inside, undecided at the start, a stem for small faces."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from contract.errors import UserError
from contract.faces import FaceInput
from contract.manifest import read_manifest
from trainer.backbones import build
from trainer.config import ModelConfig
from trainer.data.cache import packed_faces


def config(**given: object) -> ModelConfig:
    return ModelConfig.model_validate({"backbone": "test_resnet", **given})


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_go_in_and_seven_undecided_logits_come_out(channels: int) -> None:
    """A fresh network's loss is ln 7, so its first epoch is not spent on unlearning."""
    torch.manual_seed(0)
    model = build(config(), channels, [128.0] * channels, [60.0] * channels).eval()
    logits = model(torch.rand(5, channels, 32, 32) * 255)
    assert logits.shape == (5, 7)
    labels = torch.arange(5)
    assert torch.nn.functional.cross_entropy(logits, labels).item() == pytest.approx(
        np.log(7), abs=0.1
    )


def test_normalisation_travels_with_the_weights(finished: Path, phase_file: Path) -> None:
    """And is that of the training rows, not of any others."""
    stored = load_file(finished / "checkpoints/best.safetensors")
    manifest = read_manifest(phase_file.parent / "manifest.csv")
    chosen = [row.split == "train" for row in manifest.rows]
    faces = packed_faces(manifest, FaceInput.model_validate({
        "size": 32, "crop": {"yunet": {"scale": 1.0}},
    }))[chosen]  # fmt: skip
    assert stored["mean"].item() == pytest.approx(faces.mean(), abs=0.01)
    assert stored["std"].item() == pytest.approx(faces.std(), abs=0.01)


def test_a_stem_of_stride_1_keeps_the_resolution() -> None:
    sizes = {}
    for stride in (1, 2):
        model = build(config(stem_stride=stride), 1, [0.0], [1.0])
        first = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
        sizes[stride] = tuple(first(torch.zeros(1, 1, 48, 48)).shape[2:])
    assert sizes == {1: (48, 48), 2: (24, 24)}


def test_an_unknown_network_suggests_one() -> None:
    with pytest.raises(UserError, match="timm has no 'mobilnetv3_large_100', did you mean"):
        build(config(backbone="mobilnetv3_large_100"), 1, [0.0], [1.0])
