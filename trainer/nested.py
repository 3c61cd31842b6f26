"""Nested learning for distillation: levels that learn at different rates, one gating another.

Claims boundary. Nested Learning (Behrouz et al., 2512.24695) sees a model as levels of learning,
each with its own stream of data and its own rate of update. What is here, by which key of
`[nested]`, and which test of `tests/trainer/test_nested.py` or `test_memory.py` shows it:

- Levels with periods of their own: the network and its head every step (the ordinary optimiser),
  a fast class memory every step, a slow one every `slow_interval` steps, the gate every
  `meta_interval` steps (`test_each_level_has_its_period`).
- A memory (`memory`): running means of the student's answers per class. It is not learnt by
  gradient, so it cannot be driven into collapse
  (`test_memories_stay_apart_while_the_student_separates_the_classes`); agreement with it is the
  consistency 0…1 that negative learning can ask for.
- A learnt gate (`gate = "learned"`): a small network weighs the distillation of each row by six
  signals. It learns, after Meta-Weight-Net (Shu et al., 1902.07379), through one differentiable
  step of the head alone (`test_the_meta_gradient_is_what_finite_differences_say`), so that no
  activation of the network is kept for it (`test_it_keeps_no_more_for_backward`). Where half of a
  teacher's labels are wrong it learns to trust the right ones
  (`test_the_gate_learns_whom_to_trust`); such a teacher contradicts the label, which the gate sees.

What is not: the paper's deep optimisers (the "learnable optimiser" of the study's plan: AdamW and
Adam stay what they are), its self-modifying module, its continuum memory in the forward pass (the
plan's "learnable memory": what this one holds reaches the student only through the gate and
through negative learning, so that a memory alone, `gate = "one"`, changes no weight of the
student), and any meta-gradient through the backbone. That minority classes are forgotten less is
a question for the study, not a property of the code.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from contract.expressions import EXPRESSIONS
from trainer.config_study import NestedConfig
from trainer.data.augment import seed_of
from trainer.distributed import world
from trainer.memory import ClassMemory, RunningMean, sum_over_processes

SIGNALS = (
    "divergence", "student_entropy", "teacher_entropy", "teacher_margin", "consistency", "progress",
)  # fmt: skip
"""What the gate sees of a row, in this order."""

RowsLoss = Callable[[Tensor, Tensor], Tensor]
"""Losses of rows `N` from logits `N×7` and weights `N` of their distillation terms."""

_RANDOM_SPREAD = 1.0


@dataclass(frozen=True)
class Look:
    """What nested learning makes of some rows; all detached, float32.

    `consistency` `N` in [0, 1] is the student's agreement with its memory of the label. `weight`
    `N` in (0, 2) is the weight of the row's distillation, made of the gate's `score` `N`, and
    `signals` `N×6` is what the gate saw.
    """

    consistency: Tensor
    weight: Tensor
    score: Tensor
    signals: Tensor


def weights_of(scores: Tensor, mean: Tensor) -> Tensor:
    """2·sigmoid(score − mean): scores `N` and their mean → weights `N` in (0, 2).

    The gate compares rows: it can prefer some, it cannot turn distillation down or up for all of
    them, which would be another α rather than a gate. Centred scores do that within bounds.
    (Sigmoids over their mean would not: a gate then gains contrast by taking all of them towards
    zero, where a sigmoid is an exponential, and the largest weight has no bound.)
    """
    return 2 * torch.sigmoid(scores - mean)


class Gate(nn.Module):
    """Signals `N×6` → scores `N`: a small network whose last layer starts at zero.

    So the scores of a gate that has learnt nothing are all alike, every weight is exactly 1, and
    learning starts from plain distillation. With a `spread` the last layer is drawn with that
    standard deviation instead: a control that is frozen, not one that is neutral, as by luck of
    its seed it may prefer the rows that deserve it or the others. Judge it over seeds.
    """

    def __init__(self, hidden_dim: int, layers: int, spread: float = 0.0) -> None:
        super().__init__()
        widths = [len(SIGNALS)] + layers * [hidden_dim]
        hidden: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            hidden += [nn.Linear(before, after), nn.ReLU()]
        last = nn.Linear(hidden_dim, 1)
        nn.init.normal_(last.weight, std=spread)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(*hidden, last)

    def forward(self, signals: Tensor) -> Tensor:
        """Scores of rows."""
        scores: Tensor = self.network(signals).squeeze(1)
        return scores


def meta_loss(
    gate: nn.Module, head: nn.Module, embedding: Tensor, rows_loss: RowsLoss, signals: Tensor,
    meta_embedding: Tensor, meta_labels: Tensor, inner_lr: float,
) -> Tensor:  # fmt: skip
    """Cross-entropy on meta rows after one gated step of a copy of the head; one number.

    head' = head − inner_lr · ∇ mean rows_loss(head(embedding), weight), Shu et al., equations 3
    and 4, with the head for the whole network. Scores are centred by the mean of these rows, and
    gradients go through that mean as well.
    """
    parameters = {name: value.detach().requires_grad_() for name, value in head.named_parameters()}
    scores = gate(signals)
    weight = weights_of(scores, scores.mean())
    loss = rows_loss(functional_call(head, parameters, (embedding,)), weight).mean()
    gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    moved = {
        name: value - inner_lr * gradient
        for (name, value), gradient in zip(parameters.items(), gradients, strict=True)
    }
    return F.cross_entropy(functional_call(head, moved, (meta_embedding,)), meta_labels)


class Nested:
    """Class memories and the gate of one run. Of a step: `begin_step`, for each forward pass
    `look` and `remember`, then `end_step`; and `meta_step` where `learns` says so.
    """

    def __init__(self, config: NestedConfig, *, epochs: int, seed: int, device: str) -> None:
        self.config = config
        self._epochs, self._device = epochs, device
        self._memory = (
            ClassMemory(
                len(EXPRESSIONS), config.fast_momentum, config.slow_momentum,
                config.slow_interval, device,
            )
            if config.memory
            else None
        )  # fmt: skip
        spread = _RANDOM_SPREAD if config.gate == "random" else 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, len(SIGNALS)))
            self.gate = Gate(config.hidden_dim, config.layers, spread).to(device)
        self.gate.requires_grad_(config.gate == "learned")
        self._adam = torch.optim.Adam(self.gate.parameters(), lr=config.meta_lr)
        self._mean = RunningMean(torch.zeros(1, 1, device=device), config.fast_momentum)
        self._scores = torch.zeros(2, dtype=torch.float64, device=device)  # sum, count of a step

    def look(self, student: Tensor, teacher: Tensor, labels: Tensor, progress: float) -> Look:
        """Judge rows by logits `N×7` of both and labels `N`, `progress` epochs into the run.

        Signals are in [0, 1], the margin in [−1, 1], the divergence log(1 + KL(teacher ‖ student))
        in nats; entropies are shares of ln 7. The margin is the teacher's, p(label) − its
        greatest other: whether to trust the teacher is the question, and where the student stands
        is said by the divergence and the consistency. All are of the distributions at T = 1.
        """
        log_p = torch.log_softmax(student.detach().double(), dim=1)
        log_t = torch.log_softmax(teacher.detach().double(), dim=1)
        p, t = log_p.exp(), log_t.exp()
        of_label = labels.unsqueeze(1)
        margin = t.gather(1, of_label).squeeze(1) - t.scatter(1, of_label, 0.0).amax(1)
        ones = torch.ones_like(margin)
        consistency = ones if self._memory is None else self._memory.consistency(p, labels)
        signals = torch.stack(
            [
                F.kl_div(log_p, log_t, reduction="none", log_target=True).sum(1).log1p(),
                torch.special.entr(p).sum(1) / math.log(p.shape[1]),
                torch.special.entr(t).sum(1) / math.log(p.shape[1]),
                margin,
                consistency,
                ones * min(1.0, progress / self._epochs),
            ],
            dim=1,
        ).float()
        scores = self._scored(signals)
        acts = self.config.gate != "one" and progress >= self.config.meta_warmup
        weight = weights_of(scores, self._mean.value.squeeze().float())
        weight = weight if acts else torch.ones_like(scores)
        return Look(consistency.float(), weight, scores, signals)

    def _scored(self, signals: Tensor) -> Tensor:
        with torch.autocast(signals.device.type, enabled=False):
            scores: Tensor = self.gate(signals)
        return scores.detach()

    def begin_step(self) -> None:
        """Forget what was remembered of a step that is being done again."""
        self._scores.zero_()
        if self._memory is not None:
            self._memory.begin_step()

    def remember(self, student: Tensor, labels: Tensor, look: Look) -> None:
        """Take down some rows of a step (logits `N×7`, labels `N`) for its end."""
        sound = look.score.isfinite()
        scores = torch.where(sound, look.score.double(), 0.0)
        self._scores += torch.stack([scores.sum(), sound.double().sum()])
        if self._memory is not None:
            self._memory.note(torch.softmax(student.detach().double(), dim=1), labels)

    def end_step(self, step: int) -> None:
        """Update the memories, and the running mean of scores, by the rows of step `step`.

        Over all processes and forward passes at once: however a step is divided, the memories
        are the same.
        """
        sum_over_processes(self._scores)
        self._mean.update(self._scores[:1].unsqueeze(0), self._scores[1:])
        self._scores.zero_()
        if self._memory is not None:
            self._memory.end_step(step)

    def learns(self, step: int, progress: float) -> bool:
        """Whether a `meta_step` is due in step number `step`, `progress` epochs into the run."""
        due = (step + 1) % self.config.meta_interval == 0
        return self.config.gate == "learned" and progress >= self.config.meta_warmup and due

    def meta_step(
        self, head: nn.Module, embedding: Tensor, rows_loss: RowsLoss, signals: Tensor,
        meta_embedding: Tensor, meta_labels: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Teach the gate by one virtual step of the head; head and embeddings stay as they are.

        Training rows have embeddings `N×D` and signals `N×6`, meta rows embeddings `M×D` and
        labels `M`, all taken as constants. In several processes the gates' gradients are
        averaged, each from its own rows. Returns the meta loss before the gate's step.
        """
        with torch.enable_grad(), torch.autocast(self._device.split(":")[0], enabled=False):
            loss = meta_loss(
                self.gate, head, embedding.detach().float(), rows_loss, signals.detach(),
                meta_embedding.detach().float(), meta_labels, self.config.inner_lr,
            )  # fmt: skip
            gradients = torch.autograd.grad(loss, list(self.gate.parameters()))
        flat = torch.cat([gradient.flatten() for gradient in gradients]) / world()
        sum_over_processes(flat)
        if flat.isfinite().all():  # a step in half precision can overflow
            parts = flat.split([gradient.numel() for gradient in gradients])
            for parameter, part in zip(self.gate.parameters(), parts, strict=True):
                parameter.grad = part.view_as(parameter)
            self._adam.step()
        return {"meta_loss": loss.detach()}

    def parts(self, look: Look) -> dict[str, Tensor]:
        """For the history: the rows' weights and consistency, and how far classes are apart.

        `memory_apart` is the mean over pairs of classes of 1 − the agreement of their memories,
        `memory_apart_min` that of the two most alike.
        """
        found = {"gate_mean": look.weight.mean(), "gate_sd": look.weight.std(correction=0)}
        if self._memory is not None:
            apart = self._memory.apart()
            found["consistency"] = look.consistency.mean()
            found |= {"memory_apart": apart.mean(), "memory_apart_min": apart.min()}
        return found

    def state(self) -> dict[str, Tensor]:
        """All that outlives a step, as copies, flat, for a checkpoint."""
        found = {f"gate.{key}": value.clone() for key, value in self.gate.state_dict().items()}
        for index, moments in self._adam.state_dict()["state"].items():
            found |= {f"adam.{index}.{key}": value.clone() for key, value in moments.items()}
        found |= {"mean.value": self._mean.value.clone()}
        found |= {"mean.updates": self._mean.updates.clone()}
        if self._memory is not None:
            found |= {f"memory.{key}": value for key, value in self._memory.state().items()}
        return found

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from the `state` of a run with the same config, to the last bit."""
        of: dict[str, dict[str, Tensor]] = {"gate": {}, "adam": {}, "mean": {}, "memory": {}}
        for name, value in state.items():
            group, key = name.split(".", 1)
            of[group][key] = value
        self.gate.load_state_dict(of["gate"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in of["adam"].items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = value.clone()  # Adam keeps what it gets
        groups = self._adam.state_dict()["param_groups"]
        self._adam.load_state_dict({"state": moments, "param_groups": groups})
        self._mean.value = of["mean"]["value"].to(self._device, copy=True)
        self._mean.updates = of["mean"]["updates"].to(self._device, copy=True)
        if self._memory is not None:
            self._memory.load_state(of["memory"])


def _shuffled(labels: Tensor, *seed: int) -> dict[int, Tensor]:
    """Positions of the rows of each class that there is, in random order."""
    generator = torch.Generator().manual_seed(seed_of(*seed))
    found = {}
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().flatten()
        found[label] = rows[torch.randperm(len(rows), generator=generator)]
    return found


def meta_rows(labels: Tensor, share: float, seed: int) -> Tensor:
    """Positions to cut from training rows with labels `N` for the gate to learn on, in order.

    About `share` of all rows, as many of each class, but never more than half of a class: what is
    cut off a rare class the student does not learn from. A function of labels and seed alone.
    """
    by_class = _shuffled(labels.cpu(), seed)
    wanted = round(share * len(labels) / len(by_class))
    chosen = [rows[: min(wanted, len(rows) // 2)] for rows in by_class.values()]
    return torch.cat(chosen).sort().values


def meta_draw(labels: Tensor, count: int, *seed: int) -> Tensor:
    """Positions of a batch of `count` of the meta rows with labels `N`, every class alike.

    Classes take turns and each goes through its rows, again from the first when there are too
    few. A function of labels and seed alone.
    """
    by_class = list(_shuffled(labels.cpu(), *seed).values())
    turns = [divmod(number, len(by_class)) for number in range(count)]
    return torch.stack([by_class[who][turn % len(by_class[who])] for turn, who in turns])
