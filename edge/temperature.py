"""How hot the processor is, where the machine tells."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import psutil

EVERY_S = 5.0
"""Between two readings: a processor warms no faster than that matters to anybody."""

PROCESSOR = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")
"""Names that Linux gives to sensors of processors: Intel, AMD, Raspberry Pi, Jetson, other Arm."""


class Reading(Protocol):
    """One sensor."""

    @property
    def current(self) -> float:
        """Degrees Celsius."""


def hottest_c(sensors: Mapping[str, Sequence[Reading]]) -> float | None:
    """The hottest reading of the processor, else of any sensor; None where there is none.

    `sensors` are readings by name, as psutil gives them. Without a reading above zero nothing is
    known: some drivers say 0 for a sensor that is not there.
    """
    named = {name: readings for name, readings in sensors.items() if name in PROCESSOR}
    values = [
        reading.current
        for readings in (named or sensors).values()
        for reading in readings
        if reading.current > 0
    ]
    return max(values, default=None)


def temperature_c() -> float | None:
    """The processor's temperature now, degrees Celsius, or None."""
    return hottest_c(psutil.sensors_temperatures())


class Thermometer:
    """The processor's temperature as it was lately, read in a thread of its own.

    psutil asks every sensor of the machine, drives and radios among them, which may take longer
    than a frame: nobody who works on frames waits for that.
    """

    def __init__(
        self, read: Callable[[], float | None] = temperature_c, every_s: float = EVERY_S
    ) -> None:
        self.celsius: float | None = None
        """The last reading, degrees Celsius; None before the first and where there is none."""
        self._read, self._every_s = read, every_s
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="thermometer", daemon=True).start()

    def close(self) -> None:
        """Read no more. Does not wait for a sensor that just now is slow."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.celsius = self._read()
            except (OSError, ValueError):  # a driver that just now gives no number
                self.celsius = None
            self._stop.wait(self._every_s)
