"""A network over many faces, without augmentation."""

import torch
from torch import Tensor, nn

from trainer.distributed import sharded


def pixels(faces: Tensor, device: str) -> Tensor:
    """uint8 faces `N×H×W×C` → float32 `N×C×H×W` in 0…255 on a device, channels last in memory."""
    moved = faces.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    return moved.contiguous(memory_format=torch.channels_last)


def predict(
    model: nn.Module, faces: Tensor, *, rows: Tensor | None = None, device: str = "cpu",
    batch: int = 256,
) -> Tensor:  # fmt: skip
    """Logits `N×7` (float32, CPU) of uint8 faces `N×H×W×C`; the batches are dealt to processes.

    With `rows`, of those faces alone, gathered batch by batch: faces mapped from disk stay there.
    """
    model.eval()
    count = len(faces) if rows is None else len(rows)
    where = None if rows is None else rows.to(faces.device)

    def logits(part: slice) -> dict[str, Tensor]:
        with torch.inference_mode():
            some = faces[part] if where is None else faces[where[part]]
            return {"logits": model(pixels(some, device)).float().cpu()}

    return sharded(count, batch, logits, device)["logits"]
