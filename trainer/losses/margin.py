"""ArcFace: an angular margin that pulls the faces of a class together."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def arcface_logits(
    cosine: Tensor, labels: Tensor, margin: float, scale: float, easy_margin: bool
) -> Tensor:
    """`N×C` cosines and `N` labels → `N×C` logits s·cosθ, the label's s·cos(θ + m), in float32.

    Deng et al., 1801.07698; `margin` m in radians, 0 for a plain warm-up; `scale` s. Beyond
    θ = π − m, cos(θ + m) would rise again, so the hard form goes on as cosθ − m·sin(π − m), which
    keeps falling; the easy form applies the margin only where cosθ > 0. At inference the logits
    are s·cosθ for every class.
    """
    cosine = cosine.float()
    # Where cosine is ±1 the sine's slope is infinite: the floor makes it 0 there. The nearest other
    # float32 leaves a sine of 3e-4, so the slope is bounded everywhere.
    sine = ((1 - cosine) * (1 + cosine)).clamp_min(1e-12).sqrt()
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    if easy_margin:
        moved = torch.where(cosine > 0, shifted, cosine)
    else:
        beyond = cosine - margin * math.sin(math.pi - margin)
        moved = torch.where(cosine > math.cos(math.pi - margin), shifted, beyond)
    is_label = F.one_hot(labels, cosine.shape[1]).bool()
    return scale * torch.where(is_label, moved, cosine)
