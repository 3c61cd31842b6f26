"""The part of a profile that is about the microcontroller on a serial port."""

import re

from pydantic import Field, field_validator

from firmware_config.section import Section
from firmware_config.serial_protocol import BAUD

PORT_FORM = "/dev/serial/by-id/…, another path, or usb:VID:PID[:SERIAL] with four hex digits each"
LEAST_BAUD, MOST_BAUD = 1200, 4_000_000
_PORT = re.compile(r"/.+|usb:[0-9a-f]{4}:[0-9a-f]{4}(:.+)?", re.IGNORECASE)


def port_name(text: str) -> str:
    """`text` itself, if it can name a port. Raises `ValueError` if not."""
    if not _PORT.fullmatch(text):
        raise ValueError(f"'{text}' names no serial port: write {PORT_FORM}")
    return text


class SerialConfig(Section):
    """The microcontroller that is told over a serial port what the box sees."""

    port: str | None = Field(
        None,
        description="/dev/serial/by-id/…, /dev/ttyACM0 or usb:VID:PID[:SERIAL]; without it, there "
        "is no serial link.",
    )
    baud: int = Field(
        BAUD, ge=LEAST_BAUD, le=MOST_BAUD, description="Speed of the line, bits per second."
    )
    most_per_s: float = Field(
        10.0, gt=0, le=100, description="Most messages about faces, per second."
    )
    brightness: int | None = Field(
        None, ge=0, le=100,
        description="Brightness of the device's lights, percent; without it, the device's own.",
    )  # fmt: skip

    @field_validator("port")
    @classmethod
    def _form(cls, port: str | None) -> str | None:
        return None if port is None else port_name(port)
