"""A bundle's float graph → weights that can be trained on.

Exporting folds each batch norm into the convolution before it, so a bundle alone does not hold what
training needs. Here the folded numbers go back into the convolutions, and each batch norm is given
the statistics its input has on faces at hand, with a scale and a shift that undo them: the network
answers as the bundle does, and its layers are normalised again once training goes on.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from pydantic import ValidationError
from torch import Tensor, nn

from contract import metrics
from contract.bundle import Bundle, golden_inputs
from contract.errors import UserError
from contract.provenance import commit_of_this_project
from trainer.backbones import NormalisedClassifier, build
from trainer.checkpoint import Trained, open_trained, save_weights
from trainer.config import TrainConfig
from trainer.predict import pixels, predict

FEWEST_FACES = 256
"""Faces below which a batch norm's statistics would be a guess."""
BATCH = 64
Weighted: TypeAlias = nn.Conv2d | nn.Linear


def _layers(model: NormalisedClassifier, face: Tensor) -> list[tuple[Weighted, nn.Module | None]]:
    """Layers with weights in the order they answer in, each with the batch norm that follows it."""
    answered: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, _, __: answered.append(module))
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d)
    ]
    predict(model, face)
    for hook in hooks:
        hook.remove()
    layers: list[tuple[Weighted, nn.Module | None]] = []
    for module, after in zip(answered, [*answered[1:], None], strict=True):
        if isinstance(module, nn.Conv2d | nn.Linear):
            layers.append((module, after if isinstance(after, nn.BatchNorm2d) else None))
    return layers


def _graph_layers(graph: onnx.GraphProto) -> list[list[NDArray[np.float32]]]:
    """Weight and bias of every convolution and linear layer of a graph, in its order."""
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    for node in graph.node:  # weights may be kept in half precision and widened when loaded
        if node.op_type == "Cast" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
    return [
        [values[name].astype(np.float32) for name in node.input[1:] if name in values]
        for node in graph.node
        if node.op_type in ("Conv", "Gemm")
    ]


def _fill(
    model: NormalisedClassifier, face: Tensor, graph: onnx.GraphProto
) -> list[nn.BatchNorm2d]:
    """Put a graph's numbers into a network of its shape; returns the batch norms that were folded.

    Raises `ValueError` where they do not fit.
    """
    folded = []
    layers, numbers = _layers(model, face), _graph_layers(graph)
    for (layer, norm), (weight, bias) in zip(layers, numbers, strict=True):
        if weight.shape != tuple(layer.weight.shape):
            raise ValueError(f"a layer of {tuple(layer.weight.shape)} is {weight.shape} in it")
        layer.weight.copy_(torch.from_numpy(weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(bias))
        elif isinstance(norm, nn.BatchNorm2d):
            norm.reset_parameters()
            nn.init.constant_(norm.get_buffer("running_var"), 1 - norm.eps)
            norm.bias.copy_(torch.from_numpy(bias))
            folded.append(norm)
        else:
            raise ValueError("a bias has no place in it")
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    model.mean.copy_(torch.from_numpy(constants["model.mean"].copy()))
    model.std.copy_(torch.from_numpy(constants["model.std"].copy()))
    return folded


def _normalise(model: NormalisedClassifier, norms: list[nn.BatchNorm2d], faces: Tensor) -> None:
    """Give batch norms that pass their input on the statistics it has, answering as before."""
    found: dict[nn.Module, list[Tensor]] = defaultdict(list)

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        found[module].append(torch.stack([mean, variance]))

    hooks = [norm.register_forward_pre_hook(count) for norm in norms]
    predict(model, faces[: len(faces) // BATCH * BATCH], batch=BATCH)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        batches = torch.stack(found[norm])
        mean, within = batches.mean(0)
        variance = within + batches[:, 0].var(0, correction=0)
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(variance)
        norm.bias.add_(mean)
        norm.weight.copy_((variance + norm.eps).sqrt())


def restore(bundle: Bundle, faces: Tensor, folder: Path) -> Trained:
    """A bundle's float network as a run folder's best checkpoint, opened again.

    `faces` are uint8 `N×H×W×C`, as it will be trained on. Raises `UserError` where the bundle has
    no float graph or not this trainer's, faces are too few, or the folder holds something else.
    """
    info = bundle.info
    if (folder / "checkpoints").exists():
        raise UserError(f"{folder} holds a run already; name another with --out")
    if len(faces) < FEWEST_FACES:
        raise UserError(
            f"{len(faces)} training faces are too few for the statistics of batch norm; "
            f"use a manifest with {FEWEST_FACES} or more"
        )
    graphs = [each for each in info.artifacts if each.format == "onnx" and each.precision != "int8"]
    if not graphs:
        raise UserError(f"{bundle.folder}: has no float ONNX graph to restore weights from")
    file = bundle.folder / graphs[0].file
    other = UserError(
        f"{file}: is not a graph that fer-trainer exported from the network its bundle.json names; "
        "train from a run folder instead"
    )
    try:
        config = TrainConfig.model_validate(info.provenance.detail["config"])
    except (KeyError, ValidationError):
        raise UserError(
            f"{bundle.folder}/bundle.json: does not say how the network was configured, or another "
            "version of the trainer did; train from a run folder instead"
        ) from None
    plain = config.model.model_copy(update={"pretrained": False, "checkpoint_blocks": ()})
    channels = info.input.channels
    model = build(plain, info.input, [0.0] * channels, [1.0] * channels).eval()
    asked = golden_inputs(info.golden.seed, len(info.golden.logits), info.input)
    with torch.no_grad():
        try:
            norms = _fill(model, faces[:1], onnx.load(str(file)).graph)
        except (ValueError, KeyError):
            raise other from None
        _normalise(model, norms, faces)
        answered = model(pixels(torch.from_numpy(asked), "cpu")).double().numpy()
    p, golden = metrics.softmax(answered), metrics.softmax(np.array(info.golden.logits))
    if not np.abs(p - golden).mean() <= graphs[0].tolerance:
        raise other
    source = info.provenance
    about = {
        "config": config.model_copy(update={"input": info.input}).model_dump_json(),
        "commit": commit_of_this_project(),
        "epoch": str(int(source.detail.get("epoch", 1)) - 1),
        "manifest_sha256": source.manifests.get("train", ""),
        "restored": json.dumps({"bundle": info.name, "sha256": bundle.sha256}),
    }
    save_weights(folder / "checkpoints" / "best.safetensors", model, about)
    return open_trained(folder)
