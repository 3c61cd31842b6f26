"""Where training runs: device, threads and mixed precision."""

import contextlib
import os
from dataclasses import dataclass

import torch

from contract.errors import UserError
from trainer.config import TrainConfig
from trainer.distributed import launched, local_rank


@dataclass(frozen=True)
class Device:
    """A torch device and the precision that pays on it."""

    name: str
    kind: str
    amp_dtype: torch.dtype | None

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The autocast context of a forward pass."""
        if self.amp_dtype is None:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[None] = torch.autocast(self.kind, self.amp_dtype)
        return context


def _amp_dtype(config: TrainConfig, kind: str) -> torch.dtype | None:
    dtypes = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    auto = torch.float16 if kind == "cuda" else None
    return auto if config.optim.amp == "auto" else dtypes[config.optim.amp]


def autocast_of(config: TrainConfig, device: str) -> contextlib.AbstractContextManager[None]:
    """The autocast context in which a config's network is trained on a device."""
    kind = device.partition(":")[0]
    return Device(device, kind, _amp_dtype(config, kind)).autocast()


def pick_device(config: TrainConfig) -> Device:
    """The device of a config. Raises `UserError` for a device that is not there.

    `auto` precision is fp16 on a GPU and float32 on a CPU, where half precision is slower for
    depthwise convolutions.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and launched():
        name = f"cuda:{local_rank()}"
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise UserError(f"device '{name}': use auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device '{name}': this machine has no usable CUDA GPU; use --device cpu")
    if kind == "cuda":
        number, count = name.partition(":")[2] or "0", torch.cuda.device_count()
        if not number.isdecimal() or int(number) >= count:
            raise UserError(
                f"device '{name}': this machine's {count} GPU(s) count from cuda:0; name one of "
                "them, and start no more processes than there are"
            )
        torch.cuda.set_device(int(number))
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(config.threads or max(1, len(os.sched_getaffinity(0)) // shared))
    return Device(name, kind, _amp_dtype(config, kind))


def device_to_ask_on(config: TrainConfig, name: str) -> Device:
    """The device of this name for a trained network's answers.

    How many threads it was trained with is not how many it may answer with: it gets all.
    """
    return pick_device(config.model_copy(update={"device": name, "threads": 0}))
