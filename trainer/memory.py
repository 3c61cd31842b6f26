"""What the student tends to say of each expression: memories that change at two speeds.

A memory is a running mean of answers, not a parameter: nothing trains it, so nothing can pull the
memories of two classes together but a student that answers both alike.
"""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from trainer.distributed import world


def agreement(p: Tensor, q: Tensor) -> Tensor:
    """1 − JS(p ‖ q) / ln 2 of distributions `…×C`, twice → `…`, float64 in [0, 1].

    JS is the Jensen–Shannon divergence in nats (Lin, 1991), at most ln 2: 1 where the two are
    equal, 0 where they share no class.
    """
    p, q = p.double(), q.double()
    entropy = torch.special.entr
    js = entropy((p + q) / 2).sum(-1) - (entropy(p).sum(-1) + entropy(q).sum(-1)) / 2
    return (1 - js / math.log(2)).clamp(0, 1)


def sum_over_processes(values: Tensor) -> None:
    """Add up a tensor over all processes, in place; every process gets the same bits."""
    if world() > 1:
        dist.all_reduce(values)


class RunningMean:
    """Means `C×D` that each forget at a rate, of whatever came under their number.

    The first updates are a plain mean of what came so far, so that the value a memory starts with
    is gone with the first of them; once that would forget slower than `1 − momentum`, the rate
    stays there.
    """

    def __init__(self, start: Tensor, momentum: float) -> None:
        self.value = start.double()
        self.updates = torch.zeros(len(start), dtype=torch.float64, device=start.device)
        self._momentum = momentum

    def update(self, sums: Tensor, counts: Tensor) -> None:
        """Move towards the means of sums `C×D` of so many rows `C`; no row, no change."""
        came = counts > 0
        rate = (1 / (self.updates + 1)).clamp_min(1 - self._momentum)
        rate = torch.where(came, rate, 0.0).unsqueeze(1)
        means = sums / counts.clamp_min(1).unsqueeze(1)
        # Written as a difference, a mean of equal values stays that value to the last bit.
        self.value = self.value + rate * (means - self.value)
        self.updates = self.updates + came


class ClassMemory:
    """Mean answers `C×C` of the student for the rows of each class, a fast and a slow memory.

    Row y is the mean of the probabilities given to rows labelled y. The fast memory takes in every
    step, the slow one every `slow_interval` steps the mean over all of them. Until a class's first
    row, its memory is half the class itself, half the uniform distribution: a student that says
    nothing yet and one that is right both agree with it (0.85 and 0.74), one that is confidently
    wrong does not (0.19). With the uniform one alone, all who learn would disagree; with the class
    alone, all who are undecided.
    """

    def __init__(
        self, classes: int, fast_momentum: float, slow_momentum: float, slow_interval: int,
        device: str,
    ) -> None:  # fmt: skip
        start = torch.eye(classes, device=device) / 2 + 1 / (2 * classes)
        self._fast = RunningMean(start, fast_momentum)
        self._slow = RunningMean(start, slow_momentum)
        self._interval = slow_interval
        # A column of counts beside the sums: one tensor to add up over processes.
        self._step = torch.zeros(classes, classes + 1, dtype=torch.float64, device=device)
        self._since = torch.zeros_like(self._step)

    def means(self) -> Tensor:
        """What a row is compared with, `C×C`: the mean of the two memories.

        The slow one remembers a rare class beyond its last few rows; the fast one keeps a student
        that gets better from being held against what it said long ago.
        """
        return (self._fast.value + self._slow.value) / 2

    def consistency(self, p: Tensor, labels: Tensor) -> Tensor:
        """Agreement of probabilities `N×C` with the memories of their labels `N` → `N`."""
        return agreement(p, self.means()[labels])

    def apart(self) -> Tensor:
        """Distance 1 − agreement of each pair of classes' memories: `C(C−1)/2`, 0…1."""
        means = self.means()
        first, second = torch.triu_indices(len(means), len(means), 1, device=means.device)
        return 1 - agreement(means[first], means[second])

    def begin_step(self) -> None:
        """Forget rows noted since the last `end_step`: of a step that is being done again."""
        self._step.zero_()

    def note(self, p: Tensor, labels: Tensor) -> None:
        """Take down probabilities `N×C` and labels `N` of some of the rows of a step.

        Rows that are not finite (a step in half precision can overflow) are left out: a running
        mean would keep them for ever.
        """
        sound = p.isfinite().all(1)
        is_label = F.one_hot(labels, len(self._step)).double() * sound.unsqueeze(1)
        rows = torch.where(sound.unsqueeze(1), p.double(), 0.0)
        # A product with the one-hot labels, as an index_add on a GPU adds in any order.
        self._step += torch.cat([is_label.T @ rows, is_label.sum(0).unsqueeze(1)], dim=1)

    def end_step(self, step: int) -> None:
        """Update the memories with all rows of step number `step`, of every process."""
        sum_over_processes(self._step)
        self._fast.update(self._step[:, :-1], self._step[:, -1])
        self._since += self._step
        self._step.zero_()
        if (step + 1) % self._interval == 0:
            self._slow.update(self._since[:, :-1], self._since[:, -1])
            self._since.zero_()

    def state(self) -> dict[str, Tensor]:
        """Everything that outlives a step, as copies."""
        return {
            "fast": self._fast.value.clone(),
            "fast_updates": self._fast.updates.clone(),
            "slow": self._slow.value.clone(),
            "slow_updates": self._slow.updates.clone(),
            "since": self._since.clone(),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`."""
        device = self._step.device
        stored = {name: value.to(device, copy=True) for name, value in state.items()}
        self._fast.value, self._fast.updates = stored["fast"], stored["fast_updates"]
        self._slow.value, self._slow.updates = stored["slow"], stored["slow_updates"]
        self._since = stored["since"]
