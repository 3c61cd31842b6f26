"""`fer_protocol.h`, made from the protocol's one definition.

python -m firmware_config.mcu_header firmware_config/mcu/src/fer_protocol.h
"""

import sys
from pathlib import Path

from contract.files import write_text_atomic
from firmware_config import serial_protocol as protocol

HEADER = Path(__file__).parent / "mcu" / "src" / "fer_protocol.h"


def header() -> str:
    """The C header: every number of the protocol, under its name."""
    numbers = {
        "VERSION": protocol.VERSION,
        "BAUD": f"{protocol.BAUD}L",
        "HEARTBEAT_MS": f"{round(protocol.HEARTBEAT_S * 1000)}u",
        "SILENCE_MS": f"{round(protocol.SILENCE_S * 1000)}u",
        "MAX_PAYLOAD": protocol.MAX_PAYLOAD,
        "MAX_NAME": protocol.MAX_NAME,
        "MAX_FACES": protocol.MAX_FACES,
        "MAX_FRAME": protocol.MAX_FRAME,
        "MAX_ENCODED": protocol.MAX_ENCODED,
        "FROM_DEVICE": f"0x{protocol.FROM_DEVICE:02x}",
    }
    for kind in protocol.Kind:
        if kind is not protocol.Kind.FAULT:
            numbers[kind.name] = f"0x{kind:02x}"
    for result in protocol.Result:
        numbers[f"RESULT_{result.name}"] = result.value
    for value, label in enumerate(protocol.LABELS):
        numbers[f"LABEL_{label.upper()}"] = value
    numbers["LABELS"] = len(protocol.LABELS)
    lines = [f"#define FER_{name} {value}" for name, value in numbers.items()]
    return "\n".join(
        [
            "/* Made from firmware_config/serial_protocol.py by firmware_config/mcu_header.py:",
            " * change it there. */",
            "#ifndef FER_PROTOCOL_H",
            "#define FER_PROTOCOL_H",
            "",
            *lines,
            "",
            "#endif",
            "",
        ]
    )


if __name__ == "__main__":
    write_text_atomic(Path(sys.argv[1]), header())
