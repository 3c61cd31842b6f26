"""Device profiles: everything about one box that a flag may override, checked on reading."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from contract.errors import UserError, nearest
from contract.validation import explain
from firmware_config.camera_config import CameraConfig
from firmware_config.dashboard_config import DashboardConfig
from firmware_config.mqtt_config import MqttConfig
from firmware_config.purpose import Purpose, notice_text, refusal
from firmware_config.section import Section, live
from firmware_config.serial_config import SerialConfig

PROFILES = Path(__file__).parent / "profiles"
DEFAULT = "default"


class DetectorConfig(Section):
    """The face detector, and when it looks."""

    kind: Literal["auto", "yunet", "haar"] = Field(
        "auto", description="auto: YuNet where its file is found, else the built-in Haar cascade."
    )
    size: int | None = Field(
        None, ge=96, le=1920,
        description="Longer side at which a frame is searched, pixels; without it, the detector's "
        "own (320 for YuNet, 480 for Haar). Larger finds smaller faces, at its square in time.",
    )  # fmt: skip
    threads: int = Field(1, ge=1, le=64, description="Threads of YuNet.")
    score_threshold: float = Field(
        0.6, gt=0, lt=1, description="Least score of a face of YuNet, a probability."
    )
    schedule: Literal["every", "adaptive"] = Field(
        "every",
        description="every: on every frame; adaptive: seldom while every face is followed well, "
        "and at once when one is not.",
    )
    interval_s: float = Field(
        0.2, ge=0, le=5, description="Most time between detections of 'adaptive', seconds."
    )


class RuntimeConfig(Section):
    """The inference runtime."""

    bundle: Path | None = Field(
        None, description="Bundle folder; without it, the installed one, else the built-in."
    )
    backend: Literal["auto", "openvino", "onnxruntime"] = Field(
        "auto", description="auto measures both and keeps the faster that passes its check."
    )
    device: Literal["auto", "CPU", "GPU", "NPU"] = Field(
        "auto",
        description="Device of OpenVINO; auto measures all it has. The CPU stands in for one that "
        "is absent or fails.",
    )
    threads: int = Field(
        1, ge=1, le=64, description="Inference threads; a face is too little work to share out."
    )
    warm_faces: int = Field(
        2, ge=1, le=8, description="Faces in one frame that the model is made ready for at start."
    )


class QualityConfig(Section):
    """Which faces are good enough to judge; the others show as low_quality, with the reason."""

    enabled: bool = Field(
        True, title="Judge quality", description="Judge the quality of faces at all.",
        json_schema_extra=live(),
    )  # fmt: skip
    least_side: float = Field(
        24.0, ge=0, le=1000, title="Smallest face",
        description="Shorter side of the box; under it, too small. Pixels.",
        json_schema_extra=live("px"),
    )  # fmt: skip
    least_light: float = Field(
        25.0, ge=0, le=255, title="Darkest face",
        description="Mean luminance of the face; under it, too dark. 0 to 255.",
        json_schema_extra=live(),
    )  # fmt: skip
    most_light: float = Field(
        235.0, ge=0, le=255, title="Brightest face",
        description="Mean luminance of the face; over it, too bright. 0 to 255.",
        json_schema_extra=live(),
    )  # fmt: skip
    least_sharpness: float = Field(
        0.22, ge=0, le=10, title="Least sharpness",
        description="Detail over contrast of the face; under it, blurred. A ratio, 0 is no bound.",
        json_schema_extra=live(),
    )  # fmt: skip
    most_turn: float = Field(
        0.6, gt=0, le=10, title="Most turned away",
        description="Nose tip off the middle of the eyes; over it, turned away. In distances "
        "between the eyes; a frontal face has 0.",
        json_schema_extra=live(),
    )  # fmt: skip


FRAME_S = 1 / 30
"""A frame of the plan's camera, in which its windows were counted."""

# An average over a window of w seconds is w/2 old on average, as one with a time constant of w/2.
SMOOTHING_PRESETS: dict[str, dict[str, float]] = {
    "custom": {},
    "calm": {
        "tau_s": 0.15, "hysteresis": 0.15, "evidence_s": 0.15, "dwell_s": 1.0, "vote_s": 0.0,
    },
    "quick": {
        "tau_s": 0.05, "hysteresis": 0.1, "evidence_s": 0.04, "dwell_s": 0.0, "vote_s": 0.0,
    },
    "plan": {
        "tau_s": 2.5 * FRAME_S, "hysteresis": 0.1, "evidence_s": 0.0, "dwell_s": 0.0,
        "vote_s": 5 * FRAME_S,
    },
    "plan-calm": {
        "tau_s": 3.5 * FRAME_S, "hysteresis": 0.15, "evidence_s": 0.0, "dwell_s": 0.0,
        "vote_s": 7 * FRAME_S,
    },
}  # fmt: skip
"""What each preset sets, unless the file says otherwise."""


class SmoothingConfig(Section):
    """From probabilities of single frames to a label that does not flicker."""

    preset: Literal["custom", "calm", "quick", "plan", "plan-calm"] = Field(
        "custom",
        title="Smoothing preset",
        description="Fills what is not set here: calm (later, and never two changes within a "
        "second), quick (sooner), plan (a vote over 5 frames at 30 per second, lead 0.1), "
        "plan-calm (7 frames, 0.15); custom: "
        "nothing.",
        json_schema_extra=live(),
    )
    tau_s: float = Field(
        0.05, ge=0, le=10, title="Smoothing time",
        description="Time constant of the moving average, seconds; 0 is none.",
        json_schema_extra=live("s"),
    )  # fmt: skip
    hysteresis: float = Field(
        0.05, ge=0, lt=1, title="Lead of a new label",
        description="Lead in probability a new label needs over the shown one.",
        json_schema_extra=live(),
    )  # fmt: skip
    evidence_s: float = Field(
        0.1, ge=0, le=10, title="Evidence for a new label",
        description="How much must speak against a shown label, added up over time: probability "
        "by which the rules are more than met, times seconds; 0 is nothing.",
        json_schema_extra=live("s"),
    )  # fmt: skip
    abstain_threshold: float | None = Field(
        None, ge=0, le=1, title="Threshold for 'uncertain'",
        description="Overrides the bundle's threshold for 'uncertain'.",
        json_schema_extra=live(),
    )  # fmt: skip
    dwell_s: float = Field(
        0.0, ge=0, le=10, title="Least time of a label",
        description="Least time a shown label stays, seconds; 0 is none.",
        json_schema_extra=live("s"),
    )  # fmt: skip
    vote_s: float = Field(
        0.0, ge=0, le=10, title="Window of the vote",
        description="A new label must be on top for most of this long, seconds; 0 is no vote.",
        json_schema_extra=live("s"),
    )  # fmt: skip
    quality_grace_s: float = Field(
        0.5, ge=0, le=60, title="Patience with a poor face",
        description="How long a face may be too poor to judge before it shows, seconds.",
        json_schema_extra=live("s"),
    )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """What the preset says and the file does not; a wrong preset is told by its own field."""
        if isinstance(values, dict) and isinstance(preset := values.get("preset"), str):
            return {**SMOOTHING_PRESETS.get(preset, {}), **values}
        return values


class OutputConfig(Section):
    """What is written."""

    session: bool = Field(True, description="Write the session log.")
    session_dir: Path = Field(Path("sessions"), description="Folder of session logs.")
    session_max_mb: float = Field(
        64.0, ge=0.1, le=100_000, description="A session's file is continued in another beyond, MB."
    )
    session_total_mb: float = Field(
        1024.0, ge=0.2, le=1e7, description="Oldest sessions are deleted beyond this together, MB."
    )
    session_max_age_days: float = Field(
        30.0, gt=0, le=36_500, description="Sessions are deleted when this old, days."
    )
    session_fsync_s: float = Field(
        5.0, gt=0, le=3600, description="What a loss of power may cost of the log, seconds."
    )

    @model_validator(mode="after")
    def _room(self) -> "OutputConfig":
        if self.session_total_mb < 2 * self.session_max_mb:
            raise ValueError(
                f"session_total_mb ({self.session_total_mb:g}) must be at least twice "
                f"session_max_mb ({self.session_max_mb:g})"
            )
        return self


class Profile(Section):
    """One box."""

    name: str = Field(description="Name of the profile.")
    purpose: tuple[Purpose, ...] = Field(
        (),
        description="What the box is for: a word, or a list of them. A deployed profile must say "
        "it; workplace and education are refused unless medical or safety is declared with them "
        "(EU AI Act, Art. 5(1)(f)).",
    )
    notice: str | None = Field(
        None, min_length=20, max_length=1000,
        description="What people before the camera are told (EU AI Act, Art. 50(3)), shown on the "
        "page; without it, a text made from the purpose.",
    )  # fmt: skip
    camera: CameraConfig = Field(CameraConfig(), description="The camera.")
    detector: DetectorConfig = Field(DetectorConfig(), description="The face detector.")
    runtime: RuntimeConfig = Field(RuntimeConfig(), description="The inference runtime.")
    quality: QualityConfig = Field(QualityConfig(), description="Faces good enough to judge.")
    smoothing: SmoothingConfig = Field(SmoothingConfig(), description="Smoothing of labels.")
    dashboard: DashboardConfig = Field(DashboardConfig(), description="The page on the LAN.")
    output: OutputConfig = Field(OutputConfig(), description="What is written.")
    serial: SerialConfig = Field(SerialConfig(), description="The microcontroller, if any.")
    mqtt: MqttConfig = Field(MqttConfig(), description="The MQTT broker, if any.")

    @field_validator("purpose", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("purpose")
    @classmethod
    def _allowed(cls, value: tuple[Purpose, ...]) -> tuple[Purpose, ...]:
        if why := refusal(value):
            raise ValueError(why)
        return value

    def notice_text(self) -> str:
        """What people before the camera must be told."""
        sent = self.mqtt.host is not None or self.serial.port is not None
        return self.notice or notice_text(self.purpose, logged=self.output.session, sent=sent)


def profile_names() -> list[str]:
    """The profiles that ship with the program."""
    return sorted(path.stem for path in PROFILES.glob("*.toml"))


def load_profile(profile: str, overrides: dict[str, Any]) -> Profile:
    """A profile by name or TOML file, with overrides by dotted key, checked.

    Raises `UserError` naming file and key, with the nearest known key for an unknown one.
    """
    file = Path(profile) if profile.endswith(".toml") else PROFILES / f"{profile}.toml"
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = profile_names()
        raise UserError(
            f"--profile {profile}: no such profile{nearest(profile, known)} "
            f"(one of {' '.join(known)}, or a .toml file)"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{file}: not readable as TOML: {error}") from None
    content.setdefault("name", file.stem)
    for key, value in overrides.items():
        *above, name = key.split(".")
        part = content
        for section in above:
            part = part.setdefault(section, {}) if isinstance(part, dict) else {}
        if isinstance(part, dict):  # else the model below says what is wrong with it
            part[name] = value
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise explain(error, Profile, "flags" if key in overrides else file) from None
