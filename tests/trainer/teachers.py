"""Teachers made without training, right about most gratings, and a manifest to ask them about.

Random features of a tiny network, and a classifier by the distance to each class's mean.
"""

from dataclasses import replace
from pathlib import Path

import torch

from contract.faces import FaceInput
from contract.manifest import Manifest, read_manifest, write_manifest
from tests.trainer.tiny import make_manifest
from trainer.backbones import NormalisedClassifier, build
from trainer.checkpoint import save_weights
from trainer.config import ArcFaceConfig, ModelConfig, OptimConfig, TrainConfig
from trainer.data.cache import packed_faces
from trainer.predict import pixels

GREY = FaceInput(size=32)
COLOUR = FaceInput(size=24, colour="rgb", clahe=True)
ROWS = {"train": 150, "calib": 63, "val": 35}
"""More training rows than two batches of a softlabel export hold."""


def two_sources(folder: Path) -> Path:
    """A manifest of gratings from two sources, every third row from the second."""
    file = make_manifest(folder, ROWS, votes=False)
    rows = [
        replace(row, source="b" if n % 3 == 2 else "a")
        for n, row in enumerate(read_manifest(file).rows)
    ]
    write_manifest(file, rows)
    return file


def _learn(network: NormalisedClassifier, manifest: Manifest, face: FaceInput) -> None:
    """Batch statistics and class means of the training rows into a network."""
    train = [row.split == "train" for row in manifest.rows]
    faces = torch.from_numpy(packed_faces(manifest, face)[train])
    labels = torch.from_numpy(manifest.labels()[train])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(pixels(faces, "cpu"))
        _, features = network.eval()(pixels(faces, "cpu"), with_features=True)
        means = torch.stack([features.embedding[labels == c].mean(0) for c in range(7)])
        centred = means - means.mean(0)
        if network.head is not None:
            network.head.weight.copy_(centred)
            return
        classifier = network.network.get_classifier()
        steep = 8 / centred.square().sum(1).mean()
        classifier.weight.copy_(steep * centred)
        classifier.bias.copy_(
            -steep * (means.square().sum(1) / 2 - means.mean(0).square().sum() / 2)
        )


def teacher(
    manifest_file: Path, name: str, face: FaceInput, arcface: bool = False,
    protocol: str = "gratings", optim: OptimConfig | None = None,
) -> Path:  # fmt: skip
    """A run folder beside the manifest with a network of its own for every name."""
    manifest = read_manifest(manifest_file)
    model = ModelConfig(
        backbone="test_resnet", stem_stride=4,  # for speed
        arcface=ArcFaceConfig(scale=8.0) if arcface else None,
    )  # fmt: skip
    config = TrainConfig(
        phase=f"teacher_{name}", protocol=protocol, input=face, model=model, threads=1,
        optim=optim or OptimConfig(),
    )  # fmt: skip
    torch.manual_seed(sum(map(ord, name)))
    network = build(model, face, [128.0] * face.channels, [64.0] * face.channels)
    _learn(network, manifest, face)
    about = {
        "epoch": "0",
        "config": config.model_dump_json(),
        "manifest_sha256": manifest.sha256,
    }
    run = manifest_file.parent / "runs" / name
    save_weights(run / "checkpoints/best.safetensors", network, about)
    return run


def two_teachers(manifest_file: Path) -> list[Path]:
    """Two of them that see different sizes and colours, one with a cosine head."""
    return [
        teacher(manifest_file, "plain", GREY),
        teacher(manifest_file, "cosine", COLOUR, arcface=True),
    ]
