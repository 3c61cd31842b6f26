"""The MQTT link against a real broker: nothing is lost that the queue can hold, and faults show."""

import json
import logging
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contract.errors import UserError
from edge.sinks import mqtt
from edge.sinks.mqtt import MqttLink, box_name, open_mqtt
from firmware_config.mqtt_config import MqttConfig
from tests.edge.mqtt_broker import Broker, Listener, free_port, mosquitto, until
from tests.edge.results import a_face, a_kpi, a_result


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    running = Broker(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    listening = Listener(broker.port, "fer/#", "homeassistant/#")
    yield listening
    listening.close()


def a_link(port: int, **settings: Any) -> MqttLink:
    return MqttLink(MqttConfig(host="127.0.0.1", port=port, **settings), box="one")


@pytest.fixture
def link(broker: Broker) -> Iterator[MqttLink]:
    link = a_link(broker.port)
    assert until(lambda: link.problem is None)
    yield link
    link.close()


def flicker(link: MqttLink, times: int, first: int = 0) -> None:
    """So many events: a person who appears, then shows another label in each frame.

    `first` is how many there were before.
    """
    for k in range(first, first + times):
        label = "sad" if k % 2 else "happy"
        link.write(a_result(k, time.monotonic_ns(), a_face(1, label=label)))


def sequences(listener: Listener) -> list[int]:
    return [json.loads(payload)["sequence"] for payload in listener.on("fer/one/track/")]


def test_a_box_announces_itself_and_says_what_it_sees(link: MqttLink, listener: Listener) -> None:
    link.write(a_result(0, time.monotonic_ns(), a_face(5, label="sad")))
    link.measured(a_kpi())
    assert until(lambda: bool(listener.on("fer/one/state") and listener.on("fer/one/track/5")))
    assert listener.on("fer/one/availability") == [b"online"]
    (announced,) = listener.on("homeassistant/device/fer_one/config")
    assert json.loads(announced)["state_topic"] == "fer/one/state"
    (event,) = listener.on("fer/one/track/5")
    assert (json.loads(event)["event"], json.loads(event)["label"]) == ("appeared", "sad")
    state = json.loads(listener.on("fer/one/state")[-1])
    assert [person["label"] for person in state["people"]] == ["sad"]


def test_who_comes_later_still_learns_of_the_box(
    link: MqttLink, broker: Broker, listener: Listener
) -> None:
    """All but events is retained; an event would be news each time that somebody subscribes."""
    link.write(a_result(0, time.monotonic_ns(), a_face(5)))
    link.measured(a_kpi())
    # Until the broker has passed all of it on, a late listener is not late.
    assert until(lambda: bool(listener.on("fer/one/state") and listener.on("fer/one/track/5")))
    late = Listener(broker.port, "fer/#", "homeassistant/#")
    assert until(lambda: len(late.heard) >= 3)
    late.close()
    assert {(topic, retained) for topic, _, retained in late.heard} == {
        ("fer/one/availability", True),
        ("fer/one/state", True),
        ("homeassistant/device/fer_one/config", True),
    }


def test_a_state_is_sent_when_it_is_due_or_something_changed(
    link: MqttLink, listener: Listener
) -> None:
    for _ in range(3):
        link.measured(a_kpi(faces=0))
        time.sleep(0.15)
    assert until(lambda: len(listener.on("fer/one/state")) == 1)
    link.measured(a_kpi(faces=0, camera="lost"))
    assert until(lambda: len(listener.on("fer/one/state")) == 2)
    assert json.loads(listener.on("fer/one/state")[-1])["camera"] == "lost"


def test_what_happens_while_the_broker_is_away_is_told_when_it_is_back(
    link: MqttLink, broker: Broker, listener: Listener
) -> None:
    flicker(link, 3)
    link.measured(a_kpi())
    assert until(lambda: len(sequences(listener)) == 3)
    listener.forget()
    broker.stop(signal.SIGKILL)
    assert until(lambda: link.problem is not None)
    assert "no connection to the MQTT broker 127.0.0.1" in str(link.problem)
    flicker(link, 200, first=3)
    link.measured(a_kpi(camera="lost"))
    time.sleep(0.3)
    assert (len(sequences(listener)), link.waiting) == (3, 200)
    listener.heard.clear()
    broker.start()
    assert listener.listening()
    assert until(lambda: link.problem is None and link.waiting == 0)
    # It forgot what it had retained, and is told again.
    assert until(lambda: bool(listener.on("fer/one/state")))
    assert listener.on("fer/one/availability")[0] == b"online"
    # The listener comes back when it may, so it hears the later part; but that in order.
    heard = sequences(listener)
    assert heard == list(range(204 - len(heard), 204))
    assert link.lost == 0


def test_no_event_is_lost_while_the_broker_is_away(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "FIRST_PAUSE_S", 1.0)  # so that the listener is back before the box
    monkeypatch.setattr(random, "uniform", lambda least, most: most)
    before = Listener(broker.port, "fer/#")
    link = a_link(broker.port)
    assert until(lambda: link.problem is None)
    flicker(link, 5)
    assert until(lambda: sequences(before) == [1, 2, 3, 4, 5])
    before.close()
    broker.stop()
    flicker(link, 50, first=5)
    broker.start()
    after = Listener(broker.port, "fer/#")
    assert until(lambda: sequences(after) == list(range(6, 56)))
    assert until(lambda: link.waiting == 0) and link.lost == 0
    link.close()
    after.close()


def test_beyond_its_bound_the_queue_loses_the_oldest_and_says_so(tmp_path: Path) -> None:
    link = a_link(free_port(), queue=10)
    flicker(link, 25)
    assert (link.waiting, link.lost) == (10, 15)
    assert "15 events lost" in str(link.problem)
    began_s = time.monotonic()
    link.close()
    assert time.monotonic() - began_s < 2.0


def test_pauses_grow_to_their_bound_however_long_a_broker_is_away() -> None:
    pauses = [mqtt._pause_s(failures) for failures in (0, 1, 2, 10, 1024, 10**6)]
    assert pauses == [0.5, 1.0, 2.0, 15.0, 15.0, 15.0]


def test_a_box_that_ends_says_that_it_is_offline(broker: Broker, listener: Listener) -> None:
    link = a_link(broker.port)
    assert until(lambda: link.problem is None)
    flicker(link, 30)
    began_s = time.monotonic()
    link.close()
    assert time.monotonic() - began_s < 2.0
    assert until(lambda: listener.on("fer/one/availability") == [b"online", b"offline"])
    assert set(sequences(listener)) == set(range(1, 31)), "what waited is sent before"


def test_two_boxes_of_one_name_are_told_so(
    broker: Broker, link: MqttLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker ends the connection of the one that was there; some say why, this one does not."""
    monkeypatch.setattr(mqtt, "FIRST_PAUSE_S", 0.05)
    second = a_link(broker.port)
    said = "is another box called 'one'?"
    assert until(lambda: said in f"{link.problem} {second.problem}")
    second.close()


class ShortBroker(threading.Thread):
    """Answers every connection with the same bytes, and counts the connections."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(daemon=True)
        self._answer, self._server = answer, socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.connections = 0
        self.start()

    def run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.connections += 1
                connection.recv(4096)
                connection.sendall(self._answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):  # closed with something unread, it would be reset
                    pass
                connection.close()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


CONNACK, WELCOME, DISCONNECT = b"\x20\x03\x00", b"\x20\x03\x00\x00\x00", b"\xe0\x01"


@pytest.mark.parametrize(
    ("answer", "said", "again"),
    [
        (CONNACK + b"\x89\x00", "Server busy", True),
        (CONNACK + b"\x88\x00", "Server unavailable", True),
        (CONNACK + b"\x86\x00", "Bad user name or password", False),
        (CONNACK + b"\x8a\x00", "Banned", False),
        (WELCOME + DISCONNECT + b"\x8b", "Server shutting down", True),
        (WELCOME + DISCONNECT + b"\x8e", "Session taken over", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no connection", True),
    ],
)
def test_a_brokers_reason_is_told_and_decides_whether_to_try_again(
    answer: bytes, said: str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "FIRST_PAUSE_S", 0.02)
    broker = ShortBroker(answer)
    link = a_link(broker.port)
    assert until(lambda: said in str(link.problem) and broker.connections >= (3 if again else 1))
    time.sleep(0.0 if again else 0.3)
    assert again or broker.connections == 1
    assert said in str(link.problem)
    link.close()
    broker.close()


def test_a_broker_that_ends_every_connection_at_once_fills_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mqtt, "MOST_PAUSE_S", 0.01)
    broker = ShortBroker(WELCOME)
    link = a_link(broker.port)
    assert until(lambda: broker.connections >= 6)
    link.close()
    assert set(link._inflight.values()) == {
        "fer/one/availability",
        "homeassistant/device/fer_one/config",
    }
    assert len(link._inflight) == 2
    broker.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """A broker where `box` may say what it likes, and `mute` nothing."""
    passwords, rules = tmp_path / "passwords", tmp_path / "rules"
    for name in ("box", "mute"):
        create = [] if passwords.exists() else ["-c"]
        subprocess.run(
            [mosquitto("mosquitto_passwd"), "-b", *create, str(passwords), name, "geheim-17"],
            check=True, capture_output=True,
        )  # fmt: skip
    rules.write_text("user box\ntopic readwrite #\nuser mute\ntopic read #\n")
    running = Broker(tmp_path, f"password_file {passwords}", f"acl_file {rules}")
    yield running
    running.stop()


def test_a_password_opens_the_broker(guarded: Broker, tmp_path: Path) -> None:
    file = tmp_path / "fer-mqtt-password"
    file.write_text("geheim-17\n")
    config = MqttConfig(host="127.0.0.1", port=guarded.port, username="box", box="one")
    link = open_mqtt(config, "any", {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert until(lambda: link.problem is None)
    link.close()


def test_a_wrong_password_is_not_tried_again_and_again(
    guarded: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mqtt, "FIRST_PAUSE_S", 0.01)
    config = MqttConfig(host="127.0.0.1", port=guarded.port, username="box", box="one")
    with caplog.at_level(logging.WARNING):
        link = open_mqtt(config, "any", {"FER_MQTT_PASSWORD": "geheim-18"})
        assert until(lambda: "Not authorized" in str(link.problem))
        time.sleep(0.5)
    refusals = [line for line in caplog.messages if "Not authorized" in line]
    assert len(refusals) == 1
    assert "geheim" not in caplog.text + str(link.problem)
    link.close()


def test_a_broker_that_refuses_what_is_said_shows(guarded: Broker) -> None:
    config = MqttConfig(host="127.0.0.1", port=guarded.port, username="mute", discovery=False)
    link = MqttLink(config, box="one", password="geheim-17")
    flicker(link, 3)
    assert until(lambda: link.lost == 3)
    assert "refuses what the box says: Not authorized" in str(link.problem)
    link.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    done = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", "/CN=broker", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"needs openssl: {done.stderr[-200:]}")
    return folder / "cert.pem", folder / "key.pem"


def test_tls_is_spoken_to_a_broker_whose_certificate_is_known_only(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    broker = Broker(tmp_path, f"certfile {cert}", f"keyfile {key}")
    known = a_link(broker.port, tls=True, ca_file=cert)
    assert until(lambda: known.problem is None)
    stranger = a_link(broker.port, tls=True)
    assert until(lambda: "certificate" in str(stranger.problem))
    plain = a_link(broker.port)
    assert until(lambda: "not connected yet" not in str(plain.problem))
    for link in (known, stranger, plain):
        link.close()
    broker.stop()


@pytest.mark.parametrize(
    ("settings", "environment", "said"),
    [
        ({}, {"FER_MQTT_PASSWORD": "geheim"}, "set mqtt.username"),
        ({"username": "box"}, {"FER_MQTT_PASSWORD": ""}, "FER_MQTT_PASSWORD"),
        ({"tls": True, "ca_file": "none.pem"}, {}, "mqtt.ca_file none.pem"),
        ({"tls": True, "cert_file": "a", "key_file": "b"}, {}, "mqtt.cert_file a, mqtt.key_file b"),
    ],
)
def test_what_the_user_can_mend_is_said_at_once(
    settings: dict[str, Any], environment: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        open_mqtt(MqttConfig(host="127.0.0.1", **settings), "default", environment)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "paho.mqtt.client", None)
    with pytest.raises(UserError, match=r"pip install 'fer-edge\[fleet\]'"):
        open_mqtt(MqttConfig(host="127.0.0.1"), "default", {})


@pytest.mark.parametrize(
    "settings",
    [
        {"topic": "fer/#"}, {"topic": ""}, {"topic": "/fer"}, {"box": "a/b"}, {"box": "a+"},
        {"queue": 0}, {"cert_file": "a.pem", "tls": True}, {"ca_file": "a.pem"}, {"port": 0},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MqttConfig(host="broker", **settings)


def test_a_box_is_called_after_its_machine_and_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cameras on one machine are two boxes."""
    monkeypatch.setattr("socket.gethostname", lambda: "shop 3.example")
    assert box_name(MqttConfig(), "door") == "shop-3-example-door"
    assert box_name(MqttConfig(box="till"), "door") == "till"
    assert (MqttConfig().chosen_port, MqttConfig(tls=True).chosen_port) == (1883, 8883)
