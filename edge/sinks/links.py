"""Links from the box to others: each gets every result and each measurement, and may fail alone."""

from collections.abc import Sequence
from typing import Protocol

from contract.telemetry import FrameResult, KpiSnapshot
from edge.sinks.mqtt import open_mqtt
from edge.sinks.serial_link import SerialLink
from firmware_config.profile import Profile


class Link(Protocol):
    """A way out of the box. No call waits for the other side, and none raises for its faults."""

    @property
    def name(self) -> str:
        """What `/readyz` calls it."""

    @property
    def problem(self) -> str | None:
        """Why nothing gets through just now, in one line, or None."""

    def write(self, result: FrameResult) -> None:
        """A frame's result."""

    def measured(self, kpi: KpiSnapshot) -> None:
        """The state of the box, about once a second."""

    def close(self) -> None:
        """Say goodbye and end, within a second or two."""


def open_links(profile: Profile) -> Sequence[Link]:
    """The links that `profile` asks for, begun. Raises `UserError` for a setting that cannot be."""
    links: list[Link] = []
    if profile.serial.port is not None:
        links.append(SerialLink(profile.serial, profile.name))
    if profile.mqtt.host is not None:
        links.append(open_mqtt(profile.mqtt, profile.name))
    return links
