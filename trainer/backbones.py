"""Networks by name, with their normalisation inside."""

import functools
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from contract.errors import UserError, nearest
from contract.expressions import EXPRESSIONS
from contract.faces import FaceInput
from trainer.config import ModelConfig

SMALL_INPUT = 80
"""Largest input, in pixels, whose stem `stem_stride = "auto"` halves."""


@dataclass(frozen=True)
class Features:
    """What a network made of a batch: its last map `N×D×h×w` and its embedding `N×D'`."""

    map: Tensor
    embedding: Tensor


class CosineHead(nn.Module):
    """s·cos θ between an embedding and a weight per class, in float32: ArcFace's classifier.

    The margin is not here but in the training loss (`losses/margin.py`), so that a network answers
    alike in training and in use.
    """

    def __init__(self, width: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, width))
        nn.init.xavier_uniform_(self.weight)
        self.scale = scale

    def forward(self, embedding: Tensor) -> Tensor:
        """`N×D` embeddings → `N×C` scaled cosines."""
        with torch.autocast(embedding.device.type, enabled=False):
            direction = F.normalize(embedding.float())
            return self.scale * F.linear(direction, F.normalize(self.weight.float()))


class NormalisedClassifier(nn.Module):
    """A timm network that takes pixels: `N×C×H×W` floats in 0…255 in, `N×7` logits out.

    Mean and standard deviation (per channel, of 255) are buffers, so they travel with the weights
    and into the exported graph.
    """

    def __init__(
        self, network: nn.Module, mean: list[float], std: list[float],
        head: CosineHead | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network: Any = network  # timm's methods are beyond nn.Module's
        self.head = head
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    @property
    def classifier(self) -> nn.Module:
        """The head: embedding `N×D'` → logits `N×7`."""
        own: nn.Module = self.network.get_classifier()
        return own if self.head is None else self.head

    def classify_by_cosines(self, scale: float) -> None:
        """Put ArcFace's classifier in the linear one's place, its class weights as directions."""
        linear: Any = self.classifier
        head = CosineHead(linear.in_features, linear.out_features, scale)
        head.load_state_dict({"weight": linear.weight.detach()})
        self.network.reset_classifier(0)
        self.head = head

    def forward(
        self, pixels: Tensor, with_features: bool = False
    ) -> Tensor | tuple[Tensor, Features]:
        """Logits of a batch; with `with_features` a pair of them and the `Features`."""
        feature_map = self.network.forward_features((pixels - self.mean) / self.std)
        embedding = self.network.forward_head(feature_map, pre_logits=True)
        logits: Tensor = self.classifier(embedding)
        return (logits, Features(feature_map, embedding)) if with_features else logits


def _start_undecided(network: nn.Module) -> None:
    """Small classifier weights, so that an untrained network says nothing with confidence.

    timm scales a MobileNet's classifier by its number of outputs; with seven of them training
    begins with confident nonsense and huge gradients.
    """
    classifier: Any = network.get_classifier()
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)


def _set_stem(network: nn.Module, config: ModelConfig, size: int) -> None:
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    stride, wanted = first.stride[0], config.stem_stride
    if wanted == "auto":
        wanted = max(1, stride // 2) if size <= SMALL_INPUT else stride
    if wanted == stride:
        return
    first.stride = (wanted, wanted)
    if first.padding == (0, 0):  # a patch embedding: keep the map's side the input's ÷ stride
        pad = (first.kernel_size[0] - wanted) // 2
        first.padding = (pad, pad)


def recompute(network: nn.Module, names: tuple[str, ...]) -> None:
    """Let modules compute their activations again in the backward pass instead of keeping them.

    Batch-norm layers in them see each batch twice, which doubles their momentum.
    """
    known = dict(network.named_modules())
    for name in names:
        if name not in known or not name:
            raise UserError(
                f"model.checkpoint_blocks: the network has no '{name}'{nearest(name, known)}"
            )
        block = known[name]
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def build(
    config: ModelConfig, face: FaceInput, mean: list[float], std: list[float]
) -> NormalisedClassifier:
    """The network of a config. Raises `UserError` for a name timm does not know."""
    if not timm.is_model(config.backbone):
        known = timm.list_models()
        raise UserError(
            f"model.backbone: timm has no '{config.backbone}'{nearest(config.backbone, known)}"
        )
    network = timm.create_model(
        config.backbone,
        pretrained=config.pretrained,
        in_chans=face.channels,
        num_classes=len(EXPRESSIONS) if config.arcface is None else 0,
        drop_rate=config.dropout,
    )
    head = None
    if config.arcface is not None:
        width: Any = network.head_hidden_size
        head = CosineHead(width, len(EXPRESSIONS), config.arcface.scale)
    elif not config.pretrained:
        _start_undecided(network)
    _set_stem(network, config, face.size)
    recompute(network, config.checkpoint_blocks)
    return NormalisedClassifier(network, mean, std, head)
