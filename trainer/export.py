"""Trained weights → the float bundle every later stage starts from."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contract import metrics
from contract.bundle import (
    BundleInfo,
    Golden,
    Provenance,
    artifact_of,
    golden_inputs,
    write_bundle,
)
from contract.expressions import EXPRESSIONS
from contract.faces import FaceInput
from contract.manifest import Manifest
from contract.provenance import commit_of_this_project
from trainer.backbones import NormalisedClassifier
from trainer.card import model_card
from trainer.checkpoint import load_weights
from trainer.config import TrainConfig
from trainer.data.cache import packed_faces
from trainer.engine import Trainer, predict

GOLDEN_COUNT = 8
# Float runtimes differ from torch in rounding only; a hundredth is far above that and far below
# what a wrong model would show.
FLOAT_TOLERANCE = 0.01


class _Graph(nn.Module):
    """What is exported: uint8 `N×H×W×C` in, float32 logits `N×7` out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, faces: Tensor) -> Tensor:
        return self.model(faces.permute(0, 3, 1, 2).float()).float()


def export_onnx(model: nn.Module, face: FaceInput, file: Path) -> None:
    """Write the model as ONNX: input `faces` uint8 `n×H×W×C`, output `logits`, any `n`."""
    graph = _Graph(model.cpu().to(memory_format=torch.contiguous_format)).eval()
    example = torch.zeros(2, face.size, face.size, face.channels, dtype=torch.uint8)
    torch.onnx.export(
        graph,
        (example,),
        str(file),
        input_names=["faces"],
        output_names=["logits"],
        dynamic_axes={"faces": {0: "n"}, "logits": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )


def measure(logits: Tensor, labels: np.ndarray[Any, Any], temperature: float) -> metrics.Metrics:
    """All metrics of logits `N×7` at a temperature."""
    p = metrics.softmax(logits.numpy(), temperature)
    return metrics.compute(labels, p, p.argmax(axis=1))


def export_run(
    config: TrainConfig, manifest: Manifest, trainer: Trainer, model: NormalisedClassifier,
    bundle: Path,
) -> None:  # fmt: skip
    """Best averaged weights → bundle, temperature fitted on `calib`, metrics reported on `val`."""
    about = load_weights(trainer.best_file, model)
    model.eval()
    splits = np.array([row.split for row in manifest.rows])
    labels = manifest.labels()
    faces = packed_faces(manifest, config.input)

    def split_logits(split: str) -> tuple[Tensor, np.ndarray[Any, Any]]:
        chosen = np.flatnonzero(splits == split)
        part = torch.from_numpy(faces[chosen]).to(trainer.device.name)
        return predict(model, part), labels[chosen]

    calib_logits, calib_labels = split_logits("calib")
    temperature, told = 1.0, "not fitted: no finite one suits calib"
    with contextlib.suppress(ValueError):  # every row of a small or easy calib split may be right
        temperature = metrics.fit_temperature(calib_logits.numpy(), calib_labels)
        told = "fitted on calib"
    figures: dict[str, Any] = {}
    for split in ("calib", "val"):
        if (splits == split).any():
            logits, truth = split_logits(split)
            figures[split] = {
                "manifest_sha256": manifest.sha256,
                "protocol": config.protocol,
                "precision": "fp32",
                "nll_before_temperature": measure(logits, truth, 1.0).nll,
                "ece_before_temperature": measure(logits, truth, 1.0).ece,
                **measure(logits, truth, temperature).to_json(),
            }
    golden = golden_inputs(config.seed, GOLDEN_COUNT, config.input)
    answers = predict(model, torch.from_numpy(golden).to(trainer.device.name))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "student.onnx"
        export_onnx(model, config.input, file)
        info = BundleInfo(
            schema_version=1,
            name=bundle.parent.name,
            expressions=list(EXPRESSIONS),
            input=config.input,
            temperature=temperature,
            abstain_threshold=0.4,
            artifacts=[artifact_of([file], "onnx", "fp32", FLOAT_TOLERANCE)],
            metrics=figures,
            golden=Golden(seed=config.seed, logits=answers.double().numpy().tolist()),
            provenance=Provenance(
                commit=commit_of_this_project(),
                phase=config.phase,
                seed=config.seed,
                parent="",
                manifests={"train": manifest.sha256},
                detail={
                    "rows": {split: int((splits == split).sum()) for split in ("train", "calib")},
                    "epoch": int(about["epoch"]) + 1,
                    "temperature": told,
                    "sources": sorted({row.source for row in manifest.rows}),
                    "config": config.model_dump(mode="json"),
                },
            ),
        )
        write_bundle(bundle, info, [file], {"model_card.md": model_card(info)})
