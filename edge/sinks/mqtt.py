"""The link to an MQTT 5 broker: who is in view, what happens to them, and whether the box works.

The pipeline only puts events into a bounded queue. A thread of the link's own does everything with
paho: it connects, hands over at most `INFLIGHT` events that are not acknowledged yet, and comes
back with growing pauses after a loss. What was not acknowledged is sent again, so an event may come
twice and is known by its sequence number; events beyond the queue's bound are lost oldest first,
counted, and seen as a gap.
"""

import json
import logging
import os
import random
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from contract.errors import UserError
from contract.secret_settings import configured_secret
from contract.telemetry import FrameResult, KpiSnapshot
from edge import logs
from edge.sinks.home_assistant import announcement, discovery_topic
from edge.sinks.mqtt_messages import (
    OFFLINE,
    ONLINE,
    EventMessage,
    StateMessage,
    Topics,
    event_message,
    state_message,
    utc_text,
)
from edge.sinks.track_events import TrackEvent, TrackEvents
from firmware_config.mqtt_config import MqttConfig

PASSWORD_VARIABLE = "FER_MQTT_PASSWORD"
INFLIGHT = 20
"""Messages that may wait for the broker's acknowledgement; a broker may ask for fewer."""
LOOK_S = 0.05
"""How long an event may wait for the network thread to look at the queue."""
CONNECT_S = 5.0
FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 15.0
REFUSED_PAUSE_S = 60.0
"""After a refusal that trying again does not mend, such as a wrong password."""
STABLE_S = 10.0
"""A connection that lasted this long starts the pauses over."""
CLOSE_S = 1.0
PASSING = {0x80, 0x83, 0x88, 0x89, 0x8B, 0x8D, 0x97, 0x9F}
"""Reason codes of MQTT 5 (2.4) that may be over soon: busy, shutting down, quota, rate and such."""

log = logging.getLogger(__name__)


def box_name(config: MqttConfig, profile: str) -> str:
    """The box's name in topics: the configured one, else of the machine and the profile."""
    return config.box or re.sub(r"[^A-Za-z0-9_-]+", "-", f"{socket.gethostname()}-{profile}")


def open_mqtt(
    config: MqttConfig, profile: str, environment: Mapping[str, str] = os.environ
) -> "MqttLink":
    """The link that a profile called `profile` asks for, begun.

    Raises `UserError` without the extra `fleet`, for a password without a user, and for files that
    are no certificates; a broker that is not there is waited for.
    """
    password = configured_secret(PASSWORD_VARIABLE, environment)
    if password is not None:
        logs.hide(password)
        if config.username is None:
            raise UserError(f"{PASSWORD_VARIABLE} is set, but not whose: set mqtt.username")
        if not config.tls and config.host not in ("localhost", "127.0.0.1", "::1"):
            log.warning("the password for the MQTT broker is sent unencrypted: set mqtt.tls = true")
    return MqttLink(config, box=box_name(config, profile), password=password)


def _tls(config: MqttConfig) -> ssl.SSLContext:
    """How the broker is checked, and the box's own certificate. Raises `UserError`."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except OSError as error:
        raise UserError(f"mqtt.ca_file {config.ca_file}: not a certificate ({error})") from None
    if config.cert_file and config.key_file:
        try:
            context.load_cert_chain(config.cert_file, config.key_file)
        except OSError as error:
            raise UserError(
                f"mqtt.cert_file {config.cert_file}, mqtt.key_file {config.key_file}: "
                f"not a certificate and its key ({error})"
            ) from None
    return context


def _client(config: MqttConfig, box: str, password: str | None) -> Any:
    """A paho client that is not connected yet."""
    try:
        from paho.mqtt.client import Client, MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError:
        raise UserError(
            "mqtt.host needs paho-mqtt; install it with: pip install 'fer-edge[fleet]'"
        ) from None
    client = Client(CallbackAPIVersion.VERSION2, f"fer-edge-{box}", protocol=MQTTv5)
    client.connect_timeout = CONNECT_S
    if config.username is not None:
        client.username_pw_set(config.username, password)
    if config.tls:
        client.tls_set_context(_tls(config))
    return client


class MqttLink:
    """A `Link` to a broker. Built, it connects in a thread of its own, for as long as it takes."""

    name = "mqtt"

    def __init__(self, config: MqttConfig, *, box: str, password: str | None = None) -> None:
        """Raises `UserError` without the extra `fleet` and for TLS files that cannot be used."""
        self._config, self._box = config, box
        self._topics = Topics(config.topic, box)
        self._client = client = _client(config, box, password)
        client.will_set(self._topics.availability, OFFLINE, qos=1, retain=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish = self._on_publish
        self._place = f"the MQTT broker {config.host}:{config.chosen_port}"
        # Of the pipeline's thread:
        self._events = TrackEvents()
        self._run_id = utc_text(time.time_ns())
        self._sequence = 0
        self._newest: FrameResult | None = None
        self._state_due_s = 0.0
        self._shown: tuple[Any, ...] = ()
        # Handed from one thread to the other:
        self._lock = threading.Lock()
        self._queue: deque[EventMessage] = deque()
        self._state: StateMessage | None = None
        self._lost = 0
        self._stop = threading.Event()
        # Of the network's thread:
        self._connected = False
        self._sent: StateMessage | None = None
        self._ended: tuple[str, bool] | None = None
        self._short = 0  # connections in a row that were lost soon
        self._inflight: dict[int, str | None] = {}  # an announcement's topic, None of an event
        self._most_inflight = INFLIGHT
        self._fault: str | None = "not connected yet"
        self._refusal: str | None = None
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why nothing gets through just now, or None."""
        if self._fault is not None:
            lost = f"; {self._lost} events lost" if self._lost else ""
            return f"no connection to {self._place}: {self._fault}{lost}"
        return self._refusal

    @property
    def lost(self) -> int:
        """Events that will not be sent, since the start."""
        return self._lost

    @property
    def waiting(self) -> int:
        """Events that the broker has not acknowledged yet."""
        return len(self._queue) + list(self._inflight.copy().values()).count(None)

    def write(self, result: FrameResult) -> None:
        """Queue what happened in this frame."""
        self._newest = result
        self._put(self._events.update(result))

    def measured(self, kpi: KpiSnapshot) -> None:
        """Have the state sent if it is due: after its interval, or when something changed."""
        now_ns = time.monotonic_ns()
        self._put(self._events.expire(now_ns))
        newest = self._newest
        faces = () if newest is None or kpi.faces == 0 else newest.faces
        shown = (self._sequence, kpi.unready, kpi.camera, len(faces))
        if shown == self._shown and now_ns / 1e9 < self._state_due_s:
            return
        self._shown, self._state_due_s = shown, now_ns / 1e9 + self._config.state_interval_s
        state = state_message(
            kpi, faces, box=self._box, utc_ns=time.time_ns(), events_lost=self._lost
        )
        self._state = state

    def close(self) -> None:
        """Say that the box goes offline, send what waits for a second at most, and end."""
        self._stop.set()
        self._thread.join(CLOSE_S + 0.5)

    def _put(self, events: list[TrackEvent]) -> None:
        for event in events:
            self._sequence += 1
            message = event_message(event, box=self._box, run=self._run_id, sequence=self._sequence)
            with self._lock:
                self._queue.append(message)
                if len(self._queue) > self._config.queue:
                    self._queue.popleft()
                    self._lost += 1

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            began_s = time.monotonic()
            fault, passing = self._connection()
            if self._stop.is_set():
                return
            if fault != self._fault:
                log.warning("no connection to %s: %s", self._place, fault)
            self._fault = fault
            failures = 0 if time.monotonic() - began_s >= STABLE_S else failures + 1
            pause_s = _pause_s(failures) if passing else REFUSED_PAUSE_S
            # Not all boxes at the same moment when a broker comes back.
            self._stop.wait(pause_s * random.uniform(0.5, 1.0))

    def _connection(self) -> tuple[str, bool]:
        """One connection from beginning to end: why it ended, and whether that may pass soon."""
        config, client = self._config, self._client
        self._connected, self._ended = False, None
        began_s = time.monotonic()
        try:
            client.connect(config.host, config.chosen_port, config.keepalive_s, clean_start=True)
            give_up_s = time.monotonic() + CONNECT_S
            while client.loop(LOOK_S) == 0:
                if self._connected:
                    self._hand_over()
                elif time.monotonic() > give_up_s:
                    return "it does not answer as an MQTT broker", True
                if self._stop.is_set():
                    self._goodbye()
                    return "closed", True
        except Exception as error:
            # Besides faults of the network: whatever paho's parser meets in what is no MQTT.
            self._short = 0
            return _why(error), not isinstance(error, ssl.SSLCertVerificationError)
        if self._ended is not None:
            return self._ended
        short = self._fault is None and time.monotonic() - began_s < STABLE_S
        self._short = self._short + 1 if short else 0
        if self._short > 1:
            return f"connections are soon lost; is another box called '{self._box}'?", True
        return "the connection was lost", True

    def _hand_over(self) -> None:
        """Give paho what waits, as far as the broker has room for it."""
        state = self._state
        if state is not None and state is not self._sent:
            self._sent = state
            self._client.publish(self._topics.state, state.model_dump_json(), retain=True)
        while len(self._inflight) < self._most_inflight:
            with self._lock:
                if not self._queue:
                    return
                message = self._queue.popleft()
            topic = self._topics.track(message.track)
            sent = self._client.publish(topic, message.model_dump_json(), qos=1)
            self._inflight[sent.mid] = None

    def _announce(self, topic: str, payload: str) -> None:
        """Say what is retained."""
        sent = self._client.publish(topic, payload, qos=1, retain=True)
        self._inflight[sent.mid] = topic

    def _goodbye(self) -> None:
        """What waits, then that the box is offline; each acknowledged, if it does not take long."""
        until_s = time.monotonic() + CLOSE_S
        if self._connected and self._flush(until_s):
            self._announce(self._topics.availability, OFFLINE)
            self._flush(until_s)
            # Without it the broker says offline itself, by the will.
            self._client.disconnect()

    def _flush(self, until_s: float) -> bool:
        """Send until nothing waits any more; False when time or the connection ran out."""
        while self._inflight or self._queue:
            self._hand_over()
            if self._client.loop(LOOK_S) != 0 or time.monotonic() > until_s:
                return False
        return True

    def _on_connect(
        self, client: Any, data: object, flags: object, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            self._ended = _refused(reason)
            return
        log.info("connected to %s as %s", self._place, self._box)
        self._connected, self._fault = True, None
        self._sent = None  # a broker that was started anew may have forgotten it
        self._most_inflight = min(INFLIGHT, getattr(properties, "ReceiveMaximum", INFLIGHT))
        said = {self._topics.availability: ONLINE}
        if self._config.discovery:
            body = announcement(self._topics, version("fer-edge"))
            said[discovery_topic(self._config.discovery_topic, self._box)] = json.dumps(body)
        # What was never acknowledged paho says again by itself: a broker that ends every connection
        # at once, as some do with who may not speak there, must not have it pile up.
        unanswered = set(self._inflight.values())
        for topic, payload in said.items():
            if topic not in unanswered:
                self._announce(topic, payload)

    def _on_disconnect(
        self, client: Any, data: object, flags: Any, reason: Any, properties: object
    ) -> None:
        self._connected = False
        if flags.is_disconnect_packet_from_server:
            self._ended = _refused(reason)

    def _on_publish(
        self, client: Any, data: object, number: int, reason: Any, properties: object
    ) -> None:
        if number not in self._inflight:
            return  # the state, which nobody acknowledges
        event = self._inflight.pop(number) is None
        if not reason.is_failure:
            if event:
                self._refusal = None
            return
        self._refusal = f"{self._place} refuses what the box says: {reason}"
        log.warning(self._refusal)
        if event:
            with self._lock:
                self._lost += 1


def _pause_s(failures: int) -> float:
    """The pause after so many failures in a row, seconds."""
    # A broker may be away for days: 2**1024 is no float any more.
    return min(MOST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures, 16))


def _refused(reason: Any) -> tuple[str, bool]:
    """The broker's reason in words, and whether it may pass soon."""
    return f"it says '{reason}'", reason.value in PASSING


def _why(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(text.split()).lower() or type(error).__name__
