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


def face(size: int = 48, channels: int = 1) -> FaceInput:
    return FaceInput(size=size, colour="grey" if channels == 1 else "rgb")


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_go_in_and_seven_undecided_logits_come_out(channels: int) -> None:
    """A fresh network's loss is ln 7, so its first epoch is not spent on unlearning."""
    torch.manual_seed(0)
    model = build(config(), face(32, channels), [128.0] * channels, [60.0] * channels).eval()
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
        model = build(config(stem_stride=stride), face(), [0.0], [1.0])
        first = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
        sizes[stride] = tuple(first(torch.zeros(1, 1, 48, 48)).shape[2:])
    assert sizes == {1: (48, 48), 2: (24, 24)}


def test_an_unknown_network_suggests_one() -> None:
    with pytest.raises(UserError, match="timm has no 'mobilnetv3_large_100', did you mean"):
        build(config(backbone="mobilnetv3_large_100"), face(), [0.0], [1.0])


@pytest.mark.parametrize(
    ("backbone", "size", "side"),
    [
        ("resnet18", 48, 3),  # stem 1 and a max-pool: 48 ÷ 16
        ("resnet18", 96, 3),  # stem 2: 96 ÷ 32
        ("tf_efficientnet_b3", 48, 3),
        ("convnext_tiny", 48, 3),  # patches of 2 instead of 4
        ("convnext_tiny", 96, 3),
        ("mobilenetv3_large_100", 80, 5),
    ],
)
def test_small_inputs_get_a_small_stem_by_themselves(backbone: str, size: int, side: int) -> None:
    model = build(config(backbone=backbone), face(size), [0.0], [1.0]).eval()
    with torch.inference_mode():
        _, features = model(torch.zeros(1, 1, size, size), with_features=True)
    assert features.map.shape[2:] == (side, side)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_features_come_with_the_same_logits(backbone: str) -> None:
    torch.manual_seed(0)
    model = build(config(backbone=backbone), face(32), [128.0], [60.0]).eval()
    images = torch.rand(3, 1, 32, 32) * 255
    logits, features = model(images, with_features=True)
    torch.testing.assert_close(model(images), logits)
    torch.testing.assert_close(model.network((images - 128) / 60), logits, rtol=1e-4, atol=1e-5)
    assert features.map.shape[0] == features.embedding.shape[0] == 3
    assert features.embedding.ndim == 2


def test_an_arcface_model_answers_with_scaled_cosines() -> None:
    torch.manual_seed(0)
    model = build(config(arcface={"scale": 12.0}), face(32), [128.0], [60.0]).eval()
    logits, features = model(torch.rand(4, 1, 32, 32) * 255, with_features=True)
    assert model.head is not None
    embedding, weight = (
        x.detach().double().numpy() for x in (features.embedding, model.head.weight)
    )
    lengths = np.linalg.norm(embedding, axis=1)[:, None] * np.linalg.norm(weight, axis=1)
    expected = 12 * (embedding @ weight.T) / lengths
    np.testing.assert_allclose(logits.detach().numpy(), expected, atol=1e-4)


def test_recomputed_blocks_give_the_same_gradients_and_keep_less() -> None:
    kept, gradients = [], []
    for blocks in ((), ("layer1", "layer2", "layer3", "layer4")):
        torch.manual_seed(0)
        model = build(
            config(checkpoint_blocks=blocks, dropout=0.0), face(32), [128.0], [60.0]
        ).train()
        sizes: list[int] = []

        def note(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            if tensor.ndim == 4 and tensor.shape[0] == 8:  # activations, not weights
                sizes.append(tensor.numel())
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model(torch.rand(8, 1, 32, 32) * 255).square().sum()
        kept.append(sum(sizes))
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert kept[1] < 0.7 * kept[0]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_block_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="no 'layer9', did you mean 'layer"):
        build(config(checkpoint_blocks=("layer9",)), face(), [0.0], [1.0])
