"""What a live camera is doing, why, and what to do next: pure logic, with time handed in.

    waiting ──► live ◄──► dark · frozen · slow      frames come, but not as they should
       ▲          │                │
       └─ lost ◄──┴──► stalled     └ frozen long     no use waiting; it is opened again

`CameraStates` is told what happened (opened, a frame, closed, process gone, device returned) and is
asked what is due: to open the camera, or to replace the process that does not answer.
"""

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["waiting", "live", "lost", "stalled", "frozen", "dark", "slow", "ended"]
"""`waiting`: not there yet, which is normal at boot. `lost`: gone after it was there. `stalled`: it
gives no frames though it is there. `frozen`: the same picture again and again. `dark`: black, as
with a covered lens. `slow`: far fewer frames than it promised. `ended`: a recording is over.
"""

Step = Literal["open", "replace"]

REOPENED = "reopened"
"""Event: frames came again after the camera had been closed for a fault."""
RESTARTED = "restarted"
"""Event: the capture process was replaced by another."""
ABANDONED = "abandoned"
"""Event: a capture process did not end even when killed, and was left behind."""
RESIZED = "resized"
"""Event: the size of the frames changed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a live camera is opened again.

    The n-th attempt waits `first_s`·2ⁿ, at most `cap_s`, of which up to half is taken off at
    random; a frame starts the count anew.
    """

    first_s: float = 0.25
    cap_s: float = 5.0

    def delay_s(self, attempt: int, chance: float) -> float:
        """Seconds to wait before attempt `attempt` (from 0); `chance` is uniform in [0, 1)."""
        full = min(self.cap_s, self.first_s * 2.0 ** min(attempt, 30))
        return full * (1.0 - chance / 2.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a state begins; seconds, grey levels (0 to 255) and shares of the promised rate.

    Every fault is named within 2 s of its beginning, so that readiness follows within 3. A device
    may take longer to open and to give its first frame: exposure settles, a stream waits for a key
    frame.

    A frozen camera is opened again after `frozen_open_s`: a sensor's noise alone makes frames
    differ, so one that repeats itself that long hangs. As some sources have a right to stand still
    (a test card, a virtual camera), the patience doubles each time it was in vain, to
    `frozen_cap_s`.
    """

    open_s: float = 10.0
    first_frame_s: float = 5.0
    stall_s: float = 2.0
    frozen_s: float = 2.0
    frozen_frames: int = 3
    frozen_open_s: float = 10.0
    frozen_cap_s: float = 600.0
    dark_s: float = 2.0
    dark_mean: float = 20.0
    dark_spread: float = 8.0
    slow_window_s: float = 2.0
    slow_share: float = 1 / 3
    steady_share: float = 1 / 2


@dataclass(frozen=True, slots=True)
class Look:
    """What tells a dead picture from a living one.

    `same` says that every pixel is as in the frame before; `mean` and `spread` (standard deviation)
    are grey levels.
    """

    same: bool
    mean: float
    spread: float


class CameraStates:
    """State and reason of one live camera, and when it is to be opened or its process replaced.

    Times are monotonic seconds. `chance` gives the jitter, uniform in [0, 1).
    """

    def __init__(
        self,
        name: str,
        *,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._name, self._chance = name, chance
        self._limits, self._retry = limits or Limits(), retry or RetryPolicy()
        self.state: State = "waiting"
        self.reason = f"{name} is being opened"
        self.events: Counter[str] = Counter()
        self._phase: Literal["closed", "opening", "reading"] = "closed"
        self._since_s = 0.0
        self._retry_at_s = float("-inf")
        self._attempt = 0
        self._fps: float | None = None
        self._ever = self._reopening = False
        self._first_s = 0.0
        self._last_s: float | None = None
        self._same_since_s, self._same_frames = 0.0, 0
        self._frozen_openings = 0
        """How often it was opened again for being frozen, since it last moved."""
        self._dark_since_s: float | None = None
        self._arrivals: deque[float] = deque()

    @property
    def absent(self) -> bool:
        """Is it closed, so that its return is worth watching for?"""
        return self._phase == "closed"

    def due(self, now_s: float) -> Step | None:
        """What to do now. `open` is given once; `replace` means it answers no more."""
        if self._phase == "closed":
            if now_s < self._retry_at_s:
                return None
            self._phase, self._since_s = "opening", now_s
            return "open"
        still_s = now_s - self._same_since_s
        reads = self._phase == "reading" and self._same_frames > 0
        if reads and self.state == "frozen" and still_s >= self._frozen_patience_s():
            self._change(
                "frozen", f"{self._name} gave the same picture for {still_s:.0f} s; reopening it"
            )
            self._frozen_openings += 1
            self._close(now_s, at_once=True)
            return "replace"
        silent_s = now_s - (self._since_s if self._last_s is None else self._last_s)
        limit_s = self._patience_s()
        if silent_s <= limit_s:
            return None
        what = "does not open" if self._phase == "opening" else "gave no frame"
        self._change("stalled", f"{self._name} {what} for {limit_s:g} s: check its cable and power")
        self._close(now_s, at_once=True)
        return "replace"

    def opened(self, now_s: float, fps: float | None) -> None:
        """It is open, and promised `fps` frames a second (None: it does not say)."""
        self._phase, self._since_s, self._fps = "reading", now_s, fps
        self._last_s, self._dark_since_s = None, None
        self._same_frames = 0
        self._arrivals.clear()

    def frame(self, now_s: float, look: Look, skipped: int = 0) -> None:
        """A frame came, and `skipped` more since the last that were not handed over."""
        self._attempt = 0
        self.events[REOPENED] += self._reopening
        self._reopening, self._ever = False, True
        if self._last_s is None:
            self._first_s = now_s
        self._last_s = now_s
        self._arrivals.extend([now_s] * (1 + skipped))
        if not look.same and self._same_frames:  # the first one since it was opened says nothing
            self._frozen_openings = 0
        if not look.same or not self._same_frames:
            self._same_since_s, self._same_frames = now_s, 0
        self._same_frames += 1
        limits = self._limits
        if look.mean > limits.dark_mean or look.spread > limits.dark_spread:
            self._dark_since_s = None
        elif self._dark_since_s is None:
            self._dark_since_s = now_s
        self._judge(now_s)

    def closed(self, now_s: float, reason: str) -> None:
        """It could not be opened, or failed and was closed; it is tried again."""
        self._change("lost" if self._ever else "waiting", f"{reason}; retrying")
        self._close(now_s, at_once=False)

    def process_gone(self, now_s: float, fate: str) -> None:
        """The process that read it ended or was stopped; another is to take its place."""
        reason = f"{self._name}: the capture process {fate}; starting another"
        self._change("lost" if self._ever else "waiting", reason)
        self._close(now_s, at_once=True)

    def returned(self, now_s: float) -> None:
        """Its device has just appeared: it is tried at once."""
        if self._phase == "closed":
            self._attempt, self._retry_at_s = 0, now_s

    def end(self, reason: str) -> None:
        """It is over."""
        self._change("ended", reason)

    def _close(self, now_s: float, *, at_once: bool) -> None:
        at_once = at_once and self._last_s is not None  # what gave no frame would fail again
        delay_s = self._retry.delay_s(self._attempt, self._chance())
        self._retry_at_s = now_s if at_once else now_s + delay_s
        self._attempt += 1
        self._reopening = self._ever
        self._phase, self._last_s = "closed", None

    def _patience_s(self) -> float:
        if self._phase == "opening":
            return self._limits.open_s
        least = self._limits.first_frame_s if self._last_s is None else self._limits.stall_s
        return max(least, 2 / self._fps) if self._fps else least

    def _frozen_patience_s(self) -> float:
        limits = self._limits
        return min(
            limits.frozen_cap_s, limits.frozen_open_s * 2.0 ** min(self._frozen_openings, 30)
        )

    def _judge(self, now_s: float) -> None:
        """The state while frames come."""
        limits, name = self._limits, self._name
        dark_s = 0.0 if self._dark_since_s is None else now_s - self._dark_since_s
        same_s = now_s - self._same_since_s
        if dark_s >= limits.dark_s:
            self._change("dark", f"{name} is black: uncover its lens, or turn on a light")
        elif self._frozen_openings or (
            same_s >= limits.frozen_s and self._same_frames >= limits.frozen_frames
        ):
            self._change("frozen", f"{name} gives the same picture again and again: restart it")
        elif self._is_slow(now_s):
            self._change(
                "slow", f"{name} gives far fewer frames than its {self._fps:g} a second: "
                "give it more light, or check its cable and network",
            )  # fmt: skip
        else:
            self._change("live", f"{name} gives frames")

    def _is_slow(self, now_s: float) -> bool:
        window_s = self._limits.slow_window_s
        while self._arrivals[0] <= now_s - window_s:
            self._arrivals.popleft()
        if not self._fps or now_s - self._first_s < window_s:
            return False
        least = self._limits.steady_share if self.state == "slow" else self._limits.slow_share
        return len(self._arrivals) < least * self._fps * window_s

    def _change(self, state: State, reason: str) -> None:
        self.state, self.reason = state, reason
