"""What a student learns from a teacher's features: where it looks, and which faces are alike."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attention_map(feature_map: Tensor, grid: int) -> Tensor:
    """`N×D×h×w` features → `N×grid²` maps of length 1, in float32: where a network looks.

    Zagoruyko & Komodakis, 1612.03928: the mean over channels of the squares, here pooled to
    grid×grid, so that networks of any depth and width can be compared. A map of zeros stays zero.
    """
    energy = feature_map.float().square().mean(1)
    pooled = F.adaptive_avg_pool2d(energy, grid)
    return F.normalize(pooled.flatten(1), dim=1)


def attention_transfer(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """‖student − teacher‖² of `attention_map`s: `N×g²`, twice → `N`, from 0 to 2, in float32.

    Zagoruyko & Komodakis, 1612.03928: the paper's term is β/2 times the norm, not squared; its
    authors' code takes β times the mean over the g² positions of the squares. This is the sum of
    the squares, g² times the latter, with neither β nor ½: its size does not depend on the grid,
    and the phase gives the weight.
    """
    return (student_map.float() - teacher_map.float()).square().sum(1)


def similarity_preserving(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """‖G_student − G_teacher‖² / N² over a batch: `N×D` and `N×D'` → one number, in float32.

    Tung & Mori, ICCV 2019, equations 1 to 4: G are the batch's inner products E·Eᵀ, each row
    divided by its length. It compares pairs of faces, so there is no value per row.
    """
    gap = _similarities(student_embedding) - _similarities(teacher_embedding)
    return gap.square().mean()


def _similarities(embedding: Tensor) -> Tensor:
    # Autocast would multiply in half precision, where long embeddings overflow.
    with torch.autocast(embedding.device.type, enabled=False):
        full = embedding.float()
        return F.normalize(full @ full.T, dim=1)
