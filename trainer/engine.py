"""The training loop: generic over a task that owns its loss, resumable after any kill.

All randomness of a step (rows drawn, augmentation, dropout) is derived from the seed and the number
of the step, so a resumed run does what the uninterrupted one would have done. The rows of a step
are divided into pieces, and the pieces dealt to the processes: N processes that accumulate over A
pieces do what one does that accumulates over N·A.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from contract import metrics
from contract.errors import UserError
from contract.expressions import INDEX
from trainer.checkpoint import Progress, load_training, save_training, save_weights
from trainer.config import TrainConfig
from trainer.data.augment import augment, draw, seed_of
from trainer.device import Device
from trainer.distributed import SequentialBatchNorm, is_main, rank, summed, world
from trainer.figures import MINORITY
from trainer.history import History, peak_memory_mb
from trainer.monitor import warnings
from trainer.predict import predict
from trainer.reliability import temperature_or_one
from trainer.schedules import epoch_order, learning_rate, training_size
from trainer.tasks import Batch, Task


@dataclass(frozen=True)
class Data:
    """Faces `N×H×W×C` (uint8; mapped from disk, or on the device), labels `N`, rows by split.

    `held` are positions in `train` that no step is to draw.
    """

    faces: Tensor
    labels: Tensor
    train: Tensor
    calib: Tensor
    held: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))


def _decay_groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    weights = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": weights, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


class Trainer:
    """One run of the loop in a run folder. `about` goes into every file of weights."""

    def __init__(
        self, config: TrainConfig, folder: Path, model: nn.Module, task: Task, data: Data,
        device: Device, about: dict[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.config, self.folder, self.task, self.data = config, folder, task, data
        self.device, self._clock, self._about = device, clock, about or {}
        self.model = model.to(device.name, memory_format=torch.channels_last)
        self._parallel = (
            DistributedDataParallel(model, broadcast_buffers=False) if world() > 1 else None
        )
        network = model if self._parallel is None else self._parallel
        # Static shapes: a step of progressive resizing compiles anew instead of to slower code.
        self._network = torch.compile(network, dynamic=False) if config.compile else network
        self._statistics = SequentialBatchNorm(self.model)
        self.ema = ModelEmaV3(self.model, decay=config.optim.ema_decay, use_warmup=True)
        optim = config.optim
        groups = _decay_groups(self.model, optim.weight_decay)
        self.optimiser = torch.optim.AdamW(groups, lr=optim.lr, fused=True)
        self.scaler = torch.amp.GradScaler(device.kind, enabled=device.amp_dtype == torch.float16)
        self.progress = Progress()
        self.history = History(folder)
        self._rows_per_step = optim.batch_size * optim.accum_steps * world()
        drawn = torch.ones(len(data.train), dtype=torch.bool)
        drawn[data.held] = False
        self._drawn = drawn.nonzero().flatten()
        self._drawn_labels = data.labels[data.train].cpu()[drawn]
        whole, tail = divmod(len(self._drawn), self._rows_per_step)
        # Batch statistics need two rows a process; a smaller rest waits for another epoch's order.
        self.steps_per_epoch = max(1, whole + (tail >= 2 * world()))
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
            self.progress, state = load_training(
                self._state_file, self.model, self.ema.module, self.optimiser, self.scaler
            )
            self.task.load_state(state)

    def _save(self) -> None:
        if is_main():
            save_training(
                self._state_file, self.model, self.ema.module, self.optimiser, self.scaler,
                self.progress, self.task.state(),
            )  # fmt: skip

    def _pieces(self, order: Tensor, step: int) -> Iterator[tuple[Batch, float, bool]]:
        """(batch, share of the step's rows, last?) of this process's forward passes of a step."""
        optim, seed = self.config.optim, self.config.seed
        size = training_size(self.config, step / self.total_steps)
        epoch, position = divmod(step, self.steps_per_epoch)
        first = position * self._rows_per_step
        rows = order[first : first + self._rows_per_step]
        draws = self.task.draws(rows, epoch)
        if draws is None:
            draws = draw(len(rows), seed, step)
        wanted = min(optim.accum_steps * self.progress.parts * world(), len(rows) // 2)
        count = max(world(), wanted // world() * world())
        pieces = list(zip(rows.tensor_split(count), draws.tensor_split(count), strict=True))
        for number in range(rank(), count, world()):
            part, drawn = pieces[number]
            torch.manual_seed(seed_of(seed, step, number, 1))
            # Faces mapped from disk are gathered there, faces on a GPU there.
            where = self.data.train[part].to(self.data.faces.device)
            faces = self.data.faces[where].to(self.device.name, non_blocking=True)
            images = augment(faces, size, self.config.augment, drawn.to(self.device.name))
            images = images.contiguous(memory_format=torch.channels_last)
            batch = Batch(
                images, part.to(self.device.name), epoch, step / self.steps_per_epoch, step, number
            )
            yield batch, len(part) / len(rows), number + world() >= count

    def _gradients(self, order: Tensor, step: int) -> dict[str, Tensor]:
        """Forward and backward of one step; the loss and its parts, this process's share."""
        sums: dict[str, Tensor] = {}
        self.task.begin_step()
        for batch, share, last in self._pieces(order, step):
            parallel = None if last else self._parallel
            with contextlib.nullcontext() if parallel is None else parallel.no_sync():
                self._statistics.begin()
                with self.device.autocast():
                    loss, parts = self.task.loss(self._network, batch)
                # The processes' gradients are averaged, so each counts the world's size.
                self.scaler.scale(loss * (share * world())).backward()
                self._statistics.end()
            for name, value in {"loss": loss.detach(), **parts}.items():
                sums[name] = sums.get(name, 0) + value * share
        return sums

    def _with_back_off(self, order: Tensor, step: int) -> dict[str, Tensor]:
        """`_gradients`; where memory runs out, again in twice as many pieces."""
        while True:
            try:
                return self._gradients(order, step)
            except torch.OutOfMemoryError:
                size = self.config.optim.batch_size // self.progress.parts
                if world() > 1:
                    raise UserError(
                        f"out of memory with {size} images a process; lower optim.batch_size and "
                        "raise optim.accum_steps by the same factor"
                    ) from None
                if size < 4:
                    raise UserError(
                        f"out of memory with {size} images at once; use a smaller input.size or "
                        "model.checkpoint_blocks"
                    ) from None
            self.optimiser.zero_grad()
            if self.device.kind == "cuda":
                torch.cuda.empty_cache()
            self.progress = replace(self.progress, parts=2 * self.progress.parts)
            tqdm.write(f"out of memory: going on with {size // 2} images at once, as many a step")

    def _guarded(self, loss: Tensor, epoch: int) -> bool:
        """Whether the loss guard forbids this step."""
        optim = self.config.optim
        if not optim.loss_guard or epoch >= optim.loss_guard_epochs:
            return False
        value = summed([float(loss)], self.device.name)[0]
        return not value <= optim.loss_guard

    def _mend_statistics(self) -> None:
        """Where a forward pass overflowed, running statistics would never be finite again."""
        averages = self.ema.module.buffers()
        for buffer, average in zip(self.model.buffers(), averages, strict=True):
            buffer.copy_(torch.where(buffer.isfinite(), buffer, average))

    def _step(self, order: Tensor, step: int) -> dict[str, Tensor]:
        """One optimiser step; what it adds to the epoch's sums."""
        optim = self.config.optim
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(optim, step, self.steps_per_epoch)
        self.model.train()
        found = self._with_back_off(order, step)
        self.task.end_step(step)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), optim.clip_norm)
        skip = self._guarded(found["loss"], step // self.steps_per_epoch)
        finite = math.isfinite(float(norm))
        if not skip and (finite or self.scaler.is_enabled()):  # a scaler skips those itself
            self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()
        found |= self.task.after_step()
        if not finite:
            self._mend_statistics()
        self.ema.update(self.model, step=step)
        one = torch.ones((), device=norm.device)
        # Of the steps taken: a scaler that finds its scale overflows, and infinity hides the rest.
        found["grad_norm_max"] = norm.detach() if finite else one * 0
        found["guarded_steps"] = one * skip
        found["skipped_steps"] = one * (not finite)
        return found

    def _calib(self) -> dict[str, float]:
        logits = predict(
            self.ema.module, self.data.faces, rows=self.data.calib, device=self.device.name
        ).double().numpy()  # fmt: skip
        truth = self.data.labels[self.data.calib].cpu().numpy().astype(np.int64)
        p = metrics.softmax(logits)
        guess = p.argmax(axis=1)
        f1 = metrics.per_class(truth, guess, p.shape[1]).f1
        return {
            "calib_nll": metrics.nll(truth, p),
            "calib_nll_scaled": metrics.nll(
                truth, metrics.softmax(logits, temperature_or_one(logits, truth))
            ),
            "calib_accuracy": metrics.accuracy(truth, guess),
            "calib_macro_f1": float(f1.mean()),
            "calib_minority_f1": float(f1[[INDEX[name] for name in MINORITY]].mean()),
            "calib_ece": metrics.ece(truth, p),
        }

    def _end_epoch(self, epoch: int) -> None:
        sums = self.progress.sums
        steps = sums.pop("steps")
        once = {"grad_norm_max", "guarded_steps", "skipped_steps"}
        parts = sorted(set(sums) - once)  # the same in every process
        shared = summed([sums[name] for name in parts], self.device.name)
        values = {name: total / steps for name, total in zip(parts, shared, strict=True)}
        values |= {name: sums[name] for name in sorted(once)}
        values |= self._calib()
        values["steps"] = steps
        values["lr"] = float(self.optimiser.param_groups[0]["lr"])
        values["seconds"] = round(self.progress.seconds, 1)
        values["peak_memory_mb"] = peak_memory_mb(self.device.kind)
        # At the temperature it will be used at: a margin or a scale makes raw logits overconfident.
        nll = values["calib_nll_scaled"]
        if nll < self.progress.best_nll:
            self.progress = replace(self.progress, best_epoch=epoch, best_nll=nll)
            if is_main():
                about = {**self._about, "epoch": str(epoch)}
                save_weights(self.best_file, self.ema.module, about)
        self.progress = replace(self.progress, sums={}, seconds=0.0)
        if is_main():
            self.history.add(epoch, values)
            tqdm.write(
                f"epoch {epoch + 1}/{self.config.optim.epochs}  loss {values['loss']:.4f}  "
                f"calib: nll {values['calib_nll']:.4f}  accuracy {values['calib_accuracy']:.4f}  "
                f"macro-F1 {values['calib_macro_f1']:.4f}  {values['seconds']:.0f} s"
            )
            for line in warnings(self.history.lines()):
                tqdm.write(f"warning: {line}")

    def _add(self, sums: dict[str, Tensor], found: dict[str, Tensor]) -> None:
        for name, value in found.items():
            if name not in sums:
                sums[name] = value.double()
            elif name == "grad_norm_max":
                sums[name] = torch.maximum(sums[name], value)
            else:
                sums[name] = sums[name] + value
        sums["steps"] = sums.get("steps", torch.zeros((), dtype=torch.float64)) + 1

    def _keep(self, sums: dict[str, Tensor], step: int, began: float) -> None:
        """Put the state of the loop into `progress`, as numbers a file can hold."""
        self.progress = replace(
            self.progress,
            step=step,
            sums={name: float(value) for name, value in sums.items()},
            seconds=self.progress.seconds + self._clock() - began,
            rows_per_step=self._rows_per_step,
        )

    def _check_processes(self) -> None:
        """The number of a step means something else where steps are of another size."""
        optim, before = self.config.optim, self.progress.rows_per_step
        if before and before != self._rows_per_step:
            processes = before // (optim.batch_size * optim.accum_steps)
            raise UserError(
                f"{self.folder} was begun by {processes} process(es), a step of {before} images; "
                f"go on with as many (torchrun --nproc_per_node={processes}), or start a new run "
                "with --name"
            )

    def stopped_early(self) -> bool:
        """Whether `patience` epochs have passed without a better one."""
        patience = self.config.optim.patience
        done = self.progress.step // self.steps_per_epoch
        return bool(patience) and done - 1 - self.progress.best_epoch >= patience

    def run(self) -> None:
        """Train from where `progress` stands to the end, checkpointing on the way.

        Raises `UserError` for a run of another number of processes, or one whose every epoch
        ended with a loss that is not finite.
        """
        self._check_processes()
        saved = self._clock()
        while self.progress.step < self.total_steps and not self.stopped_early():
            epoch, first = divmod(self.progress.step, self.steps_per_epoch)
            power, seed = self.config.optim.balance_power, self.config.seed
            order = self._drawn[epoch_order(self._drawn_labels, power, seed, epoch)]
            sums = {
                name: torch.tensor(value, dtype=torch.float64)
                for name, value in self.progress.sums.items()
            }
            began = self._clock()
            bar = tqdm(
                range(first, self.steps_per_epoch), f"epoch {epoch + 1}", initial=first,
                total=self.steps_per_epoch, unit="step", leave=False,
                disable=None if is_main() else True,
            )  # fmt: skip
            for position in bar:
                step = epoch * self.steps_per_epoch + position
                self._add(sums, self._step(order, step))
                # The state after an epoch's last step is saved with what its end adds to it.
                last = position + 1 == self.steps_per_epoch
                if not last and self._clock() - saved > self.config.checkpoint_every_s:
                    self._keep(sums, step + 1, began)
                    self._save()
                    saved = began = self._clock()
            self._keep(sums, (epoch + 1) * self.steps_per_epoch, began)
            self._end_epoch(epoch)
            self._save()
            saved = self._clock()
        if self.progress.best_epoch < 0:
            raise UserError(
                f"{self.folder}: no epoch ended with a finite loss on calib; start a new run with "
                "--name and a lower optim.lr"
            )
