"""A real mosquitto on a loopback port, and somebody who listens to it."""

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

LIMIT_S = 20.0
"""For anything a busy machine may be slow at."""


def mosquitto(name: str = "mosquitto") -> str:
    """The path of the broker, or of another of its programs; skips where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"needs {name} (apt-get install mosquitto)")
    return found


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def until(condition: Callable[[], bool], within_s: float = LIMIT_S) -> bool:
    """Does `condition` come true in time?"""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


class Broker:
    """A broker that may be stopped and started again on its port; it keeps nothing on disk."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.port = free_port()
        self._program = mosquitto()
        self._file = folder / f"broker-{self.port}.conf"
        access = [] if any("password_file" in line for line in settings) else ["true"]
        lines = [f"listener {self.port} 127.0.0.1", *settings, "persistence false", "user root"]
        lines += [f"allow_anonymous {value}" for value in access]
        self._file.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._file)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert until(self._answers), "mosquitto does not listen"

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None


class Listener:
    """Everything a broker says on some topics, in order: topic, payload, retained or not."""

    def __init__(self, port: int, *topics: str, **credentials: str) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        if credentials:
            self._client.username_pw_set(**credentials)

        def connected(*_: Any) -> None:
            self._client.subscribe([(topic, 1) for topic in topics])

        def message(_: Any, __: Any, got: Any) -> None:
            self.heard.append((got.topic, bytes(got.payload), bool(got.retain)))

        self._client.on_connect = connected
        self._client.on_message = message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self.listening()

    def listening(self) -> bool:
        """Wait until it is subscribed (after `forget`: again)."""
        return self._subscribed.wait(LIMIT_S)

    def forget(self) -> None:
        """Before a broker is stopped, so that `listening` waits for it to be back."""
        self._subscribed.clear()

    def on(self, topic: str) -> list[bytes]:
        """The payloads heard on topics that begin so."""
        return [payload for name, payload, _ in self.heard.copy() if name.startswith(topic)]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
