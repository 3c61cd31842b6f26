"""The temperature shown is the processor's, or none."""

from dataclasses import dataclass

import pytest

from edge.temperature import hottest_c, temperature_c


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
