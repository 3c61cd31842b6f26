"""The training loop: generic over a task that owns its loss, resumable after any kill.

All randomness of a step (rows drawn, augmentation, dropout) is derived from the seed and the number
of the step, so a resumed run does what the uninterrupted one would have done.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm import tqdm

from contract import metrics
from contract.files import write_text_atomic
from trainer.checkpoint import Progress, load_training, save_training, save_weights
from trainer.config import OptimConfig, TrainConfig
from trainer.data.augment import augment
from trainer.device import Device


class Task(Protocol):
    """What is learnt: owns targets and loss."""

    def loss(self, model: nn.Module, images: Tensor, rows: Tensor) -> Tensor:
        """Scalar loss of augmented `images` (`N×C×H×W`, 0…255) of training rows `rows`."""
        ...


@dataclass(frozen=True)
class Data:
    """Faces on the device: training rows, and the rows that choose the best epoch."""

    faces: Tensor
    labels: Tensor
    calib_faces: Tensor
    calib_labels: Tensor


def _seed(*parts: int) -> int:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def learning_rate(config: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then a half cosine from `lr` to `min_lr` (Loshchilov & Hutter, 2017)."""
    total = config.epochs * steps_per_epoch
    warm = min(config.warmup_epochs * steps_per_epoch, total - 1)
    if step < warm:
        return config.lr * (step + 1) / warm
    share = (step - warm) / max(1, total - warm)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * share))


def training_size(config: TrainConfig, share: float) -> int:
    """Side of the training images once `share` of the training is done."""
    for part in config.optim.size_schedule:
        if share < part.until:
            return part.size
    return config.input.size


def epoch_order(labels: Tensor, power: float, seed: int, epoch: int) -> Tensor:
    """Rows of one epoch in order: each once, or drawn ∝ class count^-power; new every epoch."""
    generator = torch.Generator().manual_seed(_seed(seed, epoch))
    count = len(labels)
    if power == 0:
        return torch.randperm(count, generator=generator)
    frequency = torch.bincount(labels.cpu()).clamp(min=1).double() ** -power
    return torch.multinomial(frequency[labels.cpu()], count, True, generator=generator)


def predict(model: nn.Module, faces: Tensor, batch: int = 256) -> Tensor:
    """Logits `N×7` (float32, CPU) of uint8 faces `N×H×W×C`, without augmentation."""
    model.eval()
    with torch.inference_mode():
        parts = [
            model(part.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last))
            for part in faces.split(batch)
        ]
    return torch.cat(parts).float().cpu()


def _decay_groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    weights = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": weights, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


class History:
    """history.jsonl: one line an epoch; lines past a resume point are dropped."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def lines(self) -> list[dict[str, float]]:
        """The epochs so far."""
        if not self._file.is_file():
            return []
        return [json.loads(line) for line in self._file.read_text().splitlines()]

    def add(self, epoch: int, values: dict[str, float]) -> None:
        """Append an epoch, replacing any line of the same or a later one."""
        kept = [line for line in self.lines() if line["epoch"] < epoch]
        text = "".join(json.dumps(line) + "\n" for line in [*kept, {"epoch": epoch, **values}])
        write_text_atomic(self._file, text)


class Trainer:
    """One run of the loop in a run folder."""

    def __init__(
        self, config: TrainConfig, folder: Path, model: nn.Module, task: Task, data: Data,
        device: Device, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.config, self.folder, self.task, self.data = config, folder, task, data
        self.device, self._clock = device, clock
        self.model = model.to(device.name, memory_format=torch.channels_last)
        # Static shapes: a step of progressive resizing compiles anew instead of to slower code.
        self._network = torch.compile(self.model, dynamic=False) if config.compile else self.model
        self.ema = ModelEmaV3(self.model, decay=config.optim.ema_decay, use_warmup=True)
        optim = config.optim
        groups = _decay_groups(self.model, optim.weight_decay)
        self.optimiser = torch.optim.AdamW(groups, lr=optim.lr, fused=True)
        self.scaler = torch.amp.GradScaler(device.kind, enabled=device.amp_dtype == torch.float16)
        self.progress = Progress()
        self.history = History(folder / "history.jsonl")
        rows = len(data.faces)
        self.steps_per_epoch = max(1, rows // (optim.batch_size * optim.accum_steps))
        self.total_steps = self.steps_per_epoch * optim.epochs

    @property
    def _state_file(self) -> Path:
        return self.folder / "checkpoints" / "last.safetensors"

    @property
    def best_file(self) -> Path:
        """Averaged weights of the best epoch."""
        return self.folder / "checkpoints" / "best.safetensors"

    def resume(self) -> None:
        """Continue from the last checkpoint of the run folder, if there is one."""
        if self._state_file.is_file():
            self.progress = load_training(
                self._state_file, self.model, self.ema.module, self.optimiser, self.scaler
            )

    def _save(self) -> None:
        save_training(
            self._state_file, self.model, self.ema.module, self.optimiser, self.scaler,
            self.progress,
        )  # fmt: skip

    def _micro_batches(self, order: Tensor, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, rows) of the forward passes of one optimiser step."""
        optim = self.config.optim
        size = training_size(self.config, step / self.total_steps)
        first = (step % self.steps_per_epoch) * optim.batch_size * optim.accum_steps
        for part in range(optim.accum_steps):
            begin = first + part * optim.batch_size
            rows = order[begin : begin + optim.batch_size].to(self.device.name)
            generator = torch.Generator(self.device.name)
            generator.manual_seed(_seed(self.config.seed, step, part))
            torch.manual_seed(_seed(self.config.seed, step, part, 1))
            images = augment(self.data.faces[rows], size, self.config.augment, generator)
            yield images.contiguous(memory_format=torch.channels_last), rows

    def _step(self, order: Tensor, step: int) -> tuple[float, float]:
        """One optimiser step; returns its loss and gradient norm."""
        optim = self.config.optim
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(optim, step, self.steps_per_epoch)
        total = 0.0
        self.model.train()
        for images, rows in self._micro_batches(order, step):
            with self.device.autocast():
                loss = self.task.loss(self._network, images, rows) / optim.accum_steps
            self.scaler.scale(loss).backward()
            total += float(loss.detach())
        self.scaler.unscale_(self.optimiser)
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), optim.clip_norm))
        if math.isfinite(norm) or self.scaler.is_enabled():  # a scaler skips such a step itself
            self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()
        self.ema.update(self.model, step=step)
        return total, norm

    def _end_epoch(self, epoch: int, loss: float, norm: float, seconds: float) -> None:
        logits = predict(self.ema.module, self.data.calib_faces).double().numpy()
        truth = self.data.calib_labels.cpu().numpy().astype(np.int64)
        p = metrics.softmax(logits)
        guess = p.argmax(axis=1)
        values = {
            "loss": loss,
            "grad_norm_max": norm,
            "calib_nll": metrics.nll(truth, p),
            "calib_accuracy": metrics.accuracy(truth, guess),
            "calib_macro_f1": float(metrics.per_class(truth, guess, p.shape[1]).f1.mean()),
            "seconds": round(seconds, 1),
        }
        if values["calib_nll"] < self.progress.best_nll:
            save_weights(self.best_file, self.ema.module, {"epoch": str(epoch)})
            self.progress = replace(self.progress, best_epoch=epoch, best_nll=values["calib_nll"])
        self.history.add(epoch, values)
        tqdm.write(
            f"epoch {epoch + 1}/{self.config.optim.epochs}  loss {loss:.4f}  "
            f"calib: nll {values['calib_nll']:.4f}  accuracy {values['calib_accuracy']:.4f}  "
            f"macro-F1 {values['calib_macro_f1']:.4f}  {seconds:.0f} s"
        )

    def run(self) -> None:
        """Train from where `progress` stands to the end, checkpointing on the way."""
        optim = self.config.optim
        saved = self._clock()
        while self.progress.step < self.total_steps:
            epoch, first = divmod(self.progress.step, self.steps_per_epoch)
            order = epoch_order(self.data.labels, optim.balance_power, self.config.seed, epoch)
            began, losses, norms = self._clock(), [], []
            bar = tqdm(
                range(first, self.steps_per_epoch), f"epoch {epoch + 1}", initial=first,
                total=self.steps_per_epoch, unit="step", leave=False, disable=None,
            )  # fmt: skip
            for position in bar:
                loss, norm = self._step(order, epoch * self.steps_per_epoch + position)
                losses.append(loss)
                norms.append(norm)
                self.progress = replace(self.progress, step=self.progress.step + 1)
                if self._clock() - saved > self.config.checkpoint_every_s:
                    self._save()
                    saved = self._clock()
            mean = sum(losses) / len(losses)
            self._end_epoch(epoch, mean, max(norms), self._clock() - began)
            self._save()
            saved = self._clock()
