"""Serial ports by name, whatever node they have this time, and in words what goes wrong."""

import errno
import termios
from collections.abc import Callable, Iterable
from typing import Protocol

import serial
import serial.tools.list_ports

POLL_S = 0.02
"""How long a read waits for a byte: no message is later than that."""
WRITE_S = 0.5
"""A device that takes nothing for so long is taken for gone."""

PORT_FAULTS = (OSError, termios.error)
"""What pyserial raises when a port cannot be opened or goes away."""


class Port(Protocol):
    """An open serial port."""

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read at once."""

    def read(self, size: int = 1, /) -> bytes:
        """Up to so many bytes, or what came within `POLL_S`."""

    def write(self, data: bytes, /) -> int | None:
        """Send bytes."""

    def close(self) -> None:
        """Give the port back."""


class UsbPort(Protocol):
    """A port as `serial.tools.list_ports` describes it."""

    device: str
    vid: int | None
    pid: int | None
    serial_number: str | None


class PortError(OSError):
    """A port that cannot be used just now: one line with the mend."""


def usb_ports() -> Iterable[UsbPort]:
    """The serial ports of this machine; none while one of them is just going away."""
    try:
        return serial.tools.list_ports.comports()
    except (OSError, TypeError):
        # pyserial reads a device's numbers after it has found its node: unplugged in between, they
        # are None, of which it makes an int.
        return []


def locate(name: str, ports: Callable[[], Iterable[UsbPort]] = usb_ports) -> str:
    """The node of a port: a path is itself, `usb:VID:PID[:SERIAL]` is looked up.

    Raises `PortError` where none matches, or more than one.
    """
    if not name.lower().startswith("usb:"):
        return name
    vendor, product, *number = name.split(":", 3)[1:]
    wanted = int(vendor, 16), int(product, 16)
    found = [
        port
        for port in ports()
        if (port.vid, port.pid) == wanted and number in ([], [port.serial_number])
    ]
    if not found:
        raise PortError(f"{name} is not there: plug the device in")
    if len(found) > 1:
        each = ", ".join(f"{one.device} (serial {one.serial_number or 'none'})" for one in found)
        raise PortError(
            f"{name} is {len(found)} ports: {each}; add the serial, or name one by its link in "
            "/dev/serial/by-path"
        )
    return found[0].device


def open_port(name: str, baud: int) -> Port:
    """The port, for this program alone. Raises `PortError` saying why not."""
    node = locate(name)
    try:
        return serial.Serial(node, baud, timeout=POLL_S, write_timeout=WRITE_S, exclusive=True)
    except PORT_FAULTS as error:
        raise PortError(_why(name, error)) from None
    except ValueError as error:  # a speed that the driver does not have
        raise PortError(f"{name}: {' '.join(str(error).split())}") from None


def parting(name: str, error: Exception) -> str:
    """Why an open port is of no use any more. pyserial's own words are no help to its user."""
    if isinstance(error, serial.SerialTimeoutException):
        return f"{name} takes nothing: the device is stuck"
    return f"{name} went away"


def _why(name: str, error: Exception) -> str:
    match getattr(error, "errno", None):
        case errno.ENOENT | errno.ENXIO | errno.ENODEV:
            return f"{name} is not there: plug the device in"
        case errno.EACCES | errno.EPERM:
            return f"{name} may not be opened by this user: add it to the group dialout"
        case errno.EAGAIN | errno.EBUSY:
            return f"{name} is in use by another program: end that first"
    return f"{name} cannot be opened: {' '.join(str(error).split())}"
