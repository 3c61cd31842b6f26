"""The part of a profile that says which MQTT broker the box tells what it sees."""

from pathlib import Path

from pydantic import Field, model_validator

from firmware_config.section import Section

PLAIN_PORT, TLS_PORT = 1883, 8883


class MqttConfig(Section):
    """An MQTT 5 broker. The password is no key of a profile: see `FER_MQTT_PASSWORD`."""

    host: str | None = Field(
        None, min_length=1, description="Name or address of the broker; without it, MQTT is off."
    )
    port: int | None = Field(
        None, ge=1, le=65535, description="TCP port; without it 1883, or 8883 with TLS."
    )
    username: str | None = Field(
        None, min_length=1,
        description="User at the broker; the password is in FER_MQTT_PASSWORD, a file named by "
        "FER_MQTT_PASSWORD_FILE, or the systemd credential fer-mqtt-password.",
    )  # fmt: skip
    tls: bool = Field(False, description="Speak TLS, and check the broker's certificate.")
    ca_file: Path | None = Field(
        None, description="Certificates (PEM) that may vouch for the broker; else the system's."
    )
    cert_file: Path | None = Field(None, description="The box's own certificate (PEM), if any.")
    key_file: Path | None = Field(None, description="Key of cert_file (PEM).")
    topic: str = Field(
        "fer", pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$",
        description="What the topics of all boxes begin with.",
    )  # fmt: skip
    box: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_-]+$",
        description="Name of this box in topics, unlike any other's; without it, the machine's "
        "name and the profile's.",
    )  # fmt: skip
    state_interval_s: float = Field(
        10.0, ge=1, le=3600, description="Most time between two states, seconds."
    )
    queue: int = Field(
        1000, ge=1, le=100_000,
        description="Events kept while the broker is away; beyond, the oldest are lost. A number.",
    )  # fmt: skip
    keepalive_s: int = Field(
        30, ge=5, le=3600, description="After half as much again without a sign the broker gives "
        "the box up, seconds.",
    )  # fmt: skip
    discovery: bool = Field(True, description="Announce the box to Home Assistant.")
    discovery_topic: str = Field(
        "homeassistant", pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$",
        description="What Home Assistant's discovery topics begin with.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _together(self) -> "MqttConfig":
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file must be given together")
        if not self.tls and (self.ca_file or self.cert_file):
            raise ValueError("ca_file and cert_file need tls = true")
        return self

    @property
    def chosen_port(self) -> int:
        """The port, or the usual one."""
        return self.port or (TLS_PORT if self.tls else PLAIN_PORT)
