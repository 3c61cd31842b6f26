"""The temperature shown is the processor's, or none."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from edge.temperature import Thermometer, hottest_c, temperature_c


@dataclass
class Sensor:
    current: float


def sensors(**degrees: list[float]) -> dict[str, list[Sensor]]:
    return {name: [Sensor(value) for value in values] for name, values in degrees.items()}


def test_it_is_the_processors_hottest_sensor() -> None:
    found = sensors(nvme=[81.0], coretemp=[55.0, 61.0, 58.0], acpitz=[27.8])
    assert hottest_c(found) == 61.0
    assert hottest_c(sensors(nvme=[70.0], cpu_thermal=[49.5])) == 49.5


def test_without_one_of_the_processor_it_is_the_hottest_of_the_machine() -> None:
    assert hottest_c(sensors(nvme=[41.0], acpitz=[27.8])) == 41.0


@pytest.mark.parametrize("found", [{}, {"coretemp": []}, {"thermal": [0.0]}])
def test_nothing_is_said_where_nothing_is_known(found: dict[str, list[float]]) -> None:
    assert hottest_c(sensors(**found)) is None


def test_this_machine_has_one_that_can_be_or_none() -> None:
    found = temperature_c()
    assert found is None or 0 < found < 130


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


def test_nobody_waits_for_a_slow_sensor() -> None:
    answer = threading.Event()

    def slow() -> float:
        assert answer.wait(10)
        return 51.0

    thermometer = Thermometer(slow)
    assert thermometer.celsius is None
    answer.set()
    assert until(lambda: thermometer.celsius == 51.0)
    thermometer.close()


def test_a_sensor_that_fails_is_asked_again() -> None:
    mended, asked = threading.Event(), []

    def read() -> float:
        asked.append(1)
        if len(asked) == 2:
            raise OSError("no data")
        assert len(asked) == 1 or mended.wait(10)
        return 50.0

    thermometer = Thermometer(read, every_s=0.01)
    assert until(lambda: len(asked) == 3)
    assert thermometer.celsius is None, "what was read before the fault is no longer so"
    mended.set()
    assert until(lambda: thermometer.celsius == 50.0)
    thermometer.close()
