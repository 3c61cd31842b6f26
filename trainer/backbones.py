"""Networks by name, with their normalisation inside."""

import timm
import torch
from torch import Tensor, nn

from contract.errors import UserError, nearest
from contract.expressions import EXPRESSIONS
from trainer.config import ModelConfig


class NormalisedClassifier(nn.Module):
    """A timm network that takes pixels: `N×C×H×W` floats in 0…255 in, `N×7` logits out.

    Mean and standard deviation (per channel, of 255) are buffers, so they travel with the weights
    and into the exported graph.
    """

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return logits


def _start_undecided(network: nn.Module) -> None:
    """Small classifier weights, so that an untrained network says nothing with confidence.

    timm scales a MobileNet's classifier by its number of outputs; with seven of them training
    begins with confident nonsense and huge gradients.
    """
    classifier = network.get_classifier()
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)


def build(
    config: ModelConfig, channels: int, mean: list[float], std: list[float]
) -> NormalisedClassifier:  # fmt: skip
    """The network of a config. Raises `UserError` for a name timm does not know."""
    if not timm.is_model(config.backbone):
        known = timm.list_models()
        raise UserError(
            f"model.backbone: timm has no '{config.backbone}'{nearest(config.backbone, known)}"
        )
    network = timm.create_model(
        config.backbone,
        pretrained=config.pretrained,
        in_chans=channels,
        num_classes=len(EXPRESSIONS),
        drop_rate=config.dropout,
    )
    if not config.pretrained:
        _start_undecided(network)
    if config.stem_stride == 1:
        first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
        first.stride = (1, 1)
    return NormalisedClassifier(network, mean, std)
