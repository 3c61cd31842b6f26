"""Trained weights → the float bundle every later stage starts from."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

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
from contract.measured import measured
from trainer.card import model_card
from trainer.checkpoint import Trained
from trainer.predict import pixels
from trainer.predictions import Predictions

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


def export_bundle(trained: Trained, manifest: Manifest, found: Predictions, bundle: Path) -> None:
    """A trained network and its answers to `calib` and `val` → a bundle.

    The temperature was fitted on `calib`, metrics are reported on `val`.
    """
    config, about, model = trained.config, trained.about, trained.model.eval()
    figures: dict[str, Any] = {}
    for split in ("calib", "val"):
        part = found.select(split)
        if len(part):
            raw = metrics.softmax(part.logits)
            scaled = part.probabilities()
            figures[split] = {
                "manifest_sha256": manifest.sha256,
                "protocol": config.protocol,
                "precision": "fp32",
                "nll_before_temperature": metrics.nll(part.labels, raw),
                "ece_before_temperature": metrics.ece(part.labels, raw),
                **measured(part.labels, scaled, scaled.argmax(axis=1), part.sources),
            }
    golden = golden_inputs(config.seed, GOLDEN_COUNT, config.input)
    # On the CPU, where the bundle will be asked: a GPU's convolutions round to ten bits.
    with torch.inference_mode():
        answers = model.cpu()(pixels(torch.from_numpy(golden), "cpu")).double()
    fitted = "fitted on calib" if found.temperature != 1 else "not fitted: none suits calib"
    rows = Counter(row.split for row in manifest.rows)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "student.onnx"
        export_onnx(model, config.input, file)
        info = BundleInfo(
            schema_version=1,
            name=bundle.parent.name,
            expressions=list(EXPRESSIONS),
            input=config.input,
            temperature=found.temperature,
            abstain_threshold=0.4,
            artifacts=[artifact_of([file], "onnx", "fp32", FLOAT_TOLERANCE)],
            metrics=figures,
            golden=Golden(seed=config.seed, logits=answers.numpy().tolist()),
            provenance=Provenance(
                commit=about["commit"],
                phase=config.phase,
                seed=config.seed,
                parent="",
                manifests={"train": manifest.sha256},
                detail={
                    "rows": {split: rows[split] for split in ("train", "calib")},
                    "epoch": int(about["epoch"]) + 1,
                    "temperature": fitted,
                    "sources": sorted({row.source for row in manifest.rows}),
                    **({"soup": json.loads(about["soup"])} if "soup" in about else {}),
                    "inputs": {key: about[key] for key in about if key.endswith("_sha256")},
                    "config": config.model_dump(mode="json"),
                },
            ),
        )
        write_bundle(bundle, info, [file], {"model_card.md": model_card(info)})
