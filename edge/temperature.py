"""How hot the processor is, where the machine tells."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import psutil

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
