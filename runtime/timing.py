"""Latency of sessions, compared fairly: interleaved, in short warm bursts."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.session import Session


def interleaved_ms(
    sessions: Sequence[Session],
    face: NDArray[np.uint8],
    rounds: int,
    burst: int = 4,
    budget_s: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Milliseconds of single runs of `face` (`1×H×W×C`): one list per session.

    Sessions take turns, so a busy moment of the machine hits all of them. Each turn is a run that
    is not counted, because the last session left the caches cold, and `burst` that are. Ends after
    `rounds` turns each, or after the round in which `budget_s` seconds have passed.
    """
    taken: list[list[float]] = [[] for _ in sessions]
    begin = clock()
    for _ in range(rounds):
        for session, times in zip(sessions, taken, strict=True):
            session.run(face)
            for _ in range(burst):
                start = clock()
                session.run(face)
                times.append((clock() - start) * 1e3)
        if clock() - begin > budget_s:
            break
    return taken
