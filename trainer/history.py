"""What a run writes about itself while it trains."""

import json
import resource
import sys
from pathlib import Path

import torch

from contract.files import write_text_atomic


class History:
    """history.jsonl, one line an epoch, and the same in TensorBoard's form.

    Lines past a resume point are dropped.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "history.jsonl"
        self._board = folder / "tensorboard"

    def lines(self) -> list[dict[str, float]]:
        """The epochs so far."""
        if not self._file.is_file():
            return []
        return [json.loads(line) for line in self._file.read_text().splitlines()]

    def add(self, epoch: int, values: dict[str, float]) -> None:
        """Append an epoch, replacing any line of the same or a later one."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import; a run needs it once

        kept = [line for line in self.lines() if line["epoch"] < epoch]
        text = "".join(json.dumps(line) + "\n" for line in [*kept, {"epoch": epoch, **values}])
        write_text_atomic(self._file, text)
        board = SummaryWriter(str(self._board), purge_step=epoch)
        for name, value in values.items():
            board.add_scalar(name, value, epoch)
        board.close()


def peak_memory_mb(kind: str) -> float:
    """Most memory held so far, in MB: the GPU's since the last call, or the process's ever."""
    if kind == "cuda":
        peak: int = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return round(peak / 1e6, 1)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
