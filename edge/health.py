"""Is the box doing its work? Judged by what comes out of it, not by what runs. Time is handed in.

A critical check that fails makes the box not ready: no good pictures, or no results of them. The
others show what is worse than it should be while the work goes on: a model that stands in for
another, a session log that cannot be written.
"""

from contract.telemetry import Check
from edge.capture_states import State

AGE_LIMIT_S = 3.0
"""A frame or result older than this is none; a camera slower than one a second has three frames."""
ANSWER_LIMIT_S = 5.0
"""Frames without any result for so long mean that the loop makes no progress."""


class Health:
    """What the loop last saw and did. Times are monotonic seconds, `fps` what the camera is asked.

    The loop says when it takes a frame, when it has its result, and how camera and parts are.
    """

    def __init__(self, now_s: float, fps: float) -> None:
        self._started_s = now_s
        self._limit_s = max(AGE_LIMIT_S, 3 / fps)
        self._frame_s: float | None = None
        self._result_s: float | None = None
        self._unanswered_s: float | None = None
        self._fault = ""
        self._camera = Check("camera", False, "camera waiting")
        self._supervised = True
        self._parts: dict[str, Check] = {}

    def frame(self, now_s: float) -> None:
        """A frame was taken."""
        self._frame_s = now_s
        if self._unanswered_s is None:
            self._unanswered_s = now_s

    def result(self, now_s: float) -> None:
        """The result of the newest frame is there."""
        self._result_s, self._unanswered_s, self._fault = now_s, None, ""

    def failed(self, fault: str) -> None:
        """The newest frame has no result, because of `fault`."""
        self._fault = fault

    def camera(self, state: State, reason: str, supervised: bool) -> None:
        """What the camera does, why, and whether somebody looks after it."""
        self._camera = Check("camera", state == "live", f"camera {state}: {reason}")
        self._supervised = supervised

    def part(self, name: str, what: str, fault: str = "") -> None:
        """What is in use for a part that the box can do without, or what is wrong with it."""
        self._parts[name] = Check(name, not fault, fault or what, critical=False)

    def checks(self, now_s: float) -> tuple[Check, ...]:
        """Every check; of those that fail, the first is nearest to the cause."""
        return (
            self._camera,
            self._age("frames", "frame", self._frame_s, now_s),
            self._age("results", "result", self._result_s, now_s),
            *self._parts.values(),
        )

    def progressing(self, now_s: float) -> bool:
        """Should a watchdog be kept quiet?

        Yes while newest frames get their results and, with an absent camera, while it is looked
        after.
        """
        waited_s = 0.0 if self._unanswered_s is None else now_s - self._unanswered_s
        return self._supervised and waited_s <= ANSWER_LIMIT_S

    def _age(self, name: str, thing: str, last_s: float | None, now_s: float) -> Check:
        if last_s is None:
            reason, fine = f"no {thing} yet", False
        else:
            age_s = now_s - last_s
            fine = age_s <= self._limit_s
            reason = f"{thing}s come" if fine else f"no {thing} for {age_s:.0f} s"
        if not fine and thing == "result" and self._fault:
            reason = f"{reason}: {self._fault}"
        return Check(name, fine, reason)
