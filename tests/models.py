"""A tiny float bundle and labelled images it is mostly right about: made in milliseconds, no torch.

The seven "expressions" are gratings of seven orientations. The net is a bank of oriented filters,
two phases and two signs each, then a mixing convolution, global pooling and a linear layer: enough
convolutions, a hard-swish and a ReLU for quantization and both runtimes to have something to do.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from contract.bundle import (
    BUNDLE_FILE,
    Bundle,
    BundleInfo,
    Golden,
    Provenance,
    artifact_of,
    golden_inputs,
    open_bundle,
    write_bundle,
)
from contract.checksums import write_sums
from contract.expressions import EXPRESSIONS
from contract.faces import CropGeometry, FaceInput
from contract.files import sha256_file
from contract.manifest import Row, write_manifest

GOLDEN_SEED = 7
PERIOD = 11.0
CLASSES = len(EXPRESSIONS)


def grating(
    label: int, rng: np.random.Generator, size: int = 48, noise: float = 40.0
) -> NDArray[np.uint8]:
    """A `size×size` grey image of class `label`: its orientation, a random phase, jitter, noise."""
    angle = np.pi * (label + rng.normal(0, 0.18)) / CLASSES
    y, x = np.mgrid[:size, :size]
    phase = rng.uniform(0, 2 * np.pi)
    wave = np.sin(2 * np.pi / PERIOD * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    image = 128 + rng.uniform(40, 48) * wave + rng.normal(0, noise, (size, size))
    return np.clip(image, 0, 255).astype(np.uint8)


def _filters(kernel: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """`28×1×k×k`: per orientation a cosine and a sine, each with both signs, windowed."""
    half = kernel // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    window = np.exp(-(x**2 + y**2) / (2 * (half / 1.5) ** 2))
    bank = []
    for label in range(CLASSES):
        angle = np.pi * label / CLASSES
        wave = 2 * np.pi / PERIOD * (x * np.cos(angle) + y * np.sin(angle))
        for part in (np.cos(wave), np.sin(wave)):
            part = (part - (part * window).sum() / window.sum()) * window
            part = 12 * part / np.abs(part).sum() + rng.normal(0, 1e-4, part.shape)
            bank += [part, -part]
    return np.stack(bank)[:, None].astype(np.float32)


def tiny_graph(face: FaceInput, seed: int = 0, scale: float = 1.0) -> onnx.ModelProto:
    """The net as ONNX: uint8 `N×H×W×C` "faces" → "logits" `N×7`.

    `scale` multiplies the last layer's weights: at another value the net is another model.
    """
    rng = np.random.default_rng(seed)
    first = np.repeat(_filters(13, rng), face.channels, axis=1) / face.channels
    # Energy of each orientation less that of the others (a large common part would drown in INT8),
    # and a few mixtures of all that the last layer scarcely uses.
    mix = np.full((14, 28), -1.0 / (CLASSES - 1), np.float32)
    for label in range(CLASSES):
        mix[label, 4 * label : 4 * label + 4] = 1.0
    mix[7:] = rng.normal(0, 0.3, (7, 28))
    last = np.zeros((CLASSES, 14), np.float32)
    last[:, :CLASSES] = 6.0 * np.eye(CLASSES)
    last[:, 7:] = rng.normal(0, 0.05, (CLASSES, 7))
    weights = {
        "mean": np.float32(127.5).reshape(1, 1, 1, 1),
        "inverse_std": np.float32(1 / 127.5).reshape(1, 1, 1, 1),
        "first": first.astype(np.float32),
        "first_bias": np.zeros(28, np.float32),
        "mix": mix[:, :, None, None],
        "mix_bias": np.zeros(14, np.float32),
        "last": last * np.float32(scale),
        "last_bias": rng.normal(0, 0.05, CLASSES).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["faces"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["nchw", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "inverse_std"], ["x0"]),
        helper.make_node("Conv", ["x0", "first", "first_bias"], ["x1"], strides=[2, 2]),
        helper.make_node("Relu", ["x1"], ["x2"]),
        helper.make_node("Conv", ["x2", "mix", "mix_bias"], ["x3"]),
        helper.make_node("HardSwish", ["x3"], ["x4"]),
        helper.make_node("GlobalAveragePool", ["x4"], ["x5"]),
        helper.make_node("Flatten", ["x5"], ["x6"]),
        helper.make_node("Gemm", ["x6", "last", "last_bias"], ["logits"], transB=1),
    ]
    shape = ["n", face.size, face.size, face.channels]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def reference_logits(model: onnx.ModelProto, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What ONNX Runtime, used directly, answers."""
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"faces": faces})[0], np.float32)


def make_float_bundle(
    folder: Path,
    size: int = 48,
    colour: Literal["grey", "rgb"] = "grey",
    seed: int = 0,
    name: str = "tiny",
    temperature: float = 0.6,
    texts: Mapping[str, str] | None = None,
) -> Bundle:
    """A float bundle at `folder` as the trainer exports one: `student.onnx` in float32."""
    geometry = CropGeometry(scale=1.0)
    face = FaceInput(size=size, colour=colour, crop={"yunet": geometry, "haar": geometry})
    model = tiny_graph(face, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / "student.onnx"
    file.write_bytes(model.SerializeToString())
    golden = reference_logits(model, golden_inputs(GOLDEN_SEED, 16, face))
    info = BundleInfo(
        name=name,
        expressions=list(EXPRESSIONS),
        input=face,
        temperature=temperature,
        artifacts=[artifact_of([file], "onnx", "fp32", tolerance=0.001)],
        metrics={"val": {"n": 70, "protocol": "argmax", "accuracy": 0.9}},
        golden=Golden(seed=GOLDEN_SEED, logits=golden.astype(float).tolist()),
        provenance=Provenance(commit="0" * 40, phase="tiny", seed=seed),
    )
    write_bundle(folder, info, [file], dict(texts or {}))
    file.unlink()
    return open_bundle(folder)


def add_artifact(
    bundle: Bundle, model: onnx.ModelProto, file: str, precision: Literal["int8", "fp16", "fp32"]
) -> Bundle:
    """`bundle` with one more ONNX artifact, put first, rehashed; opened again."""
    path = bundle.folder / file
    path.write_bytes(model.SerializeToString())
    artifact = artifact_of([path], "onnx", precision, tolerance=0.02)
    info = bundle.info.model_copy(update={"artifacts": [artifact, *bundle.info.artifacts]})
    (bundle.folder / BUNDLE_FILE).write_text(info.model_dump_json(indent=2))
    write_sums(bundle.folder)
    return open_bundle(bundle.folder)


def rehash(folder: Path) -> Bundle:
    """Write the present hashes of a bundle's files into all its lists, as a forger would."""
    content = json.loads((folder / BUNDLE_FILE).read_text())
    for artifact in content["artifacts"]:
        artifact["sha256"] = {name: sha256_file(folder / name) for name in artifact["sha256"]}
    (folder / BUNDLE_FILE).write_text(json.dumps(content))
    write_sums(folder)
    return open_bundle(folder)


def make_images(
    folder: Path, per_class: int, seed: int = 0, split: str = "val", size: int = 48
) -> Path:
    """Labelled gratings as PNG files and their manifest, `<split>.csv`; returns the manifest."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for number in range(per_class * CLASSES):
        label = number % CLASSES
        path = folder / split / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), grating(label, rng, size))
        rows.append(Row(f"{split}/{path.name}", EXPRESSIONS[label], split, "gratings"))
    manifest = folder / f"{split}.csv"
    write_manifest(manifest, rows)
    return manifest
