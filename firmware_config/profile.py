"""Device profiles: everything about one box that a flag may override, checked on reading."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contract.errors import UserError, nearest
from contract.validation import explain

PROFILES = Path(__file__).parent / "profiles"
DEFAULT = "default"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CameraControls(_Section):
    """Controls of a V4L2 camera, in the driver's own numbers (`v4l2-ctl --list-ctrls`).

    What is not named is left as it is. They are set again after every reopening, and read back.
    """

    exposure_auto: int | None = Field(None, description="Automatic exposure: 1 off, 3 on.")
    white_balance_auto: int | None = Field(None, description="Automatic white balance: 0 or 1.")
    focus_auto: int | None = Field(None, description="Automatic focus: 0 or 1.")
    exposure: int | None = Field(None, description="Exposure time, units of 0.1 ms.")
    white_balance_temperature: int | None = Field(None, description="White balance, kelvin.")
    focus: int | None = Field(None, description="Focus distance, driver's units.")
    brightness: int | None = Field(None, description="Brightness, driver's units.")
    contrast: int | None = Field(None, description="Contrast, driver's units.")
    saturation: int | None = Field(None, description="Saturation, driver's units.")
    hue: int | None = Field(None, description="Hue, driver's units.")
    gain: int | None = Field(None, description="Gain, driver's units.")
    gamma: int | None = Field(None, description="Gamma, driver's units.")
    sharpness: int | None = Field(None, description="Sharpness, driver's units.")
    backlight_compensation: int | None = Field(
        None, description="Backlight compensation, driver's units."
    )
    zoom: int | None = Field(None, description="Zoom, driver's units.")
    pan: int | None = Field(None, description="Pan, driver's units.")
    tilt: int | None = Field(None, description="Tilt, driver's units.")

    def named(self) -> dict[str, int]:
        """The controls that were given a value."""
        return self.model_dump(exclude_none=True)


class CameraConfig(_Section):
    """The camera asked for; what it grants may differ."""

    source: str = Field(
        "/dev/video0",
        description="/dev/videoN, an index, /dev/v4l/by-id/…, usb:VID:PID[:SERIAL], csi://N, "
        "rtsp:// or http:// address, file, folder, demo, or scripted:FILE.toml.",
    )
    width: int = Field(640, ge=64, le=7680, description="Width asked for, pixels.")
    height: int = Field(480, ge=64, le=4320, description="Height asked for, pixels.")
    fps: float = Field(30.0, gt=0, le=240, description="Frame rate asked for, frames per second.")
    controls: CameraControls = Field(
        CameraControls(), description="Controls to set; nothing by default."
    )


class DetectorConfig(_Section):
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


class RuntimeConfig(_Section):
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


class QualityConfig(_Section):
    """Which faces are good enough to judge; the others show as low_quality, with the reason."""

    enabled: bool = Field(True, description="Judge the quality of faces at all.")
    least_side: float = Field(
        24.0, ge=0, le=1000, description="Shorter side of the box; under it, too small. Pixels."
    )
    least_light: float = Field(
        25.0, ge=0, le=255, description="Mean luminance of the face; under it, too dark. 0 to 255."
    )
    most_light: float = Field(
        235.0, ge=0, le=255,
        description="Mean luminance of the face; over it, too bright. 0 to 255.",
    )  # fmt: skip
    least_sharpness: float = Field(
        0.22, ge=0, le=10,
        description="Detail over contrast of the face; under it, blurred. A ratio, 0 is no bound.",
    )  # fmt: skip
    most_turn: float = Field(
        0.6, gt=0, le=10,
        description="Nose tip off the middle of the eyes; over it, turned away. In distances "
        "between the eyes; a frontal face has 0.",
    )  # fmt: skip


FRAME_S = 1 / 30
"""A frame of the plan's camera, in which its windows were counted."""

# An average over a window of w seconds is w/2 old on average, as one with a time constant of w/2.
SMOOTHING_PRESETS: dict[str, dict[str, float]] = {
    "custom": {},
    "calm": {"tau_s": 0.5, "hysteresis": 0.15, "dwell_s": 1.0, "vote_s": 0.0},
    "quick": {"tau_s": 0.12, "hysteresis": 0.08, "dwell_s": 0.0, "vote_s": 0.0},
    "plan": {"tau_s": 2.5 * FRAME_S, "hysteresis": 0.1, "dwell_s": 0.0, "vote_s": 5 * FRAME_S},
    "plan-calm": {
        "tau_s": 3.5 * FRAME_S, "hysteresis": 0.15, "dwell_s": 0.0, "vote_s": 7 * FRAME_S,
    },
}  # fmt: skip
"""What each preset sets, unless the file says otherwise."""


class SmoothingConfig(_Section):
    """From probabilities of single frames to a label that does not flicker."""

    preset: Literal["custom", "calm", "quick", "plan", "plan-calm"] = Field(
        "custom",
        description="Fills what is not set here: calm (fewer changes), quick (sooner), plan (a "
        "vote over 5 frames at 30 per second, lead 0.1), plan-calm (7 frames, 0.15); custom: "
        "nothing.",
    )
    tau_s: float = Field(
        0.25, ge=0, le=10, description="Time constant of the moving average, seconds; 0 is none."
    )
    hysteresis: float = Field(
        0.1, ge=0, lt=1, description="Lead in probability a new label needs over the shown one."
    )
    abstain_threshold: float | None = Field(
        None, ge=0, le=1, description="Overrides the bundle's threshold for 'uncertain'."
    )
    dwell_s: float = Field(
        0.0, ge=0, le=10, description="Least time a shown label stays, seconds; 0 is none."
    )
    vote_s: float = Field(
        0.0,
        ge=0,
        le=10,
        description="A new label must be on top for most of this long, seconds; 0 is no vote.",
    )
    quality_grace_s: float = Field(
        0.5,
        ge=0,
        le=60,
        description="How long a face may be too poor to judge before it shows, seconds.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """What the preset says and the file does not; a wrong preset is told by its own field."""
        if isinstance(values, dict) and isinstance(preset := values.get("preset"), str):
            return {**SMOOTHING_PRESETS.get(preset, {}), **values}
        return values


class DashboardConfig(_Section):
    """The page on the LAN."""

    enabled: bool = Field(True, description="Start the dashboard with the program.")
    host: str = Field("127.0.0.1", description="Address it listens on; others need a token.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0 takes any free one.")
    preview_fps: float = Field(12.0, gt=0, le=60, description="Most preview images per second.")
    raw_view_s: float = Field(
        300.0, gt=0, le=3600, description="Seconds until a raw view turns itself off."
    )


class OutputConfig(_Section):
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


class Profile(_Section):
    """One box."""

    name: str = Field(description="Name of the profile.")
    camera: CameraConfig = Field(CameraConfig(), description="The camera.")
    detector: DetectorConfig = Field(DetectorConfig(), description="The face detector.")
    runtime: RuntimeConfig = Field(RuntimeConfig(), description="The inference runtime.")
    quality: QualityConfig = Field(QualityConfig(), description="Faces good enough to judge.")
    smoothing: SmoothingConfig = Field(SmoothingConfig(), description="Smoothing of labels.")
    dashboard: DashboardConfig = Field(DashboardConfig(), description="The page on the LAN.")
    output: OutputConfig = Field(OutputConfig(), description="What is written.")


def profile_names() -> list[str]:
    """The profiles that ship with the program."""
    return sorted(path.stem for path in PROFILES.glob("*.toml"))


def load_profile(profile: str, overrides: dict[str, Any]) -> Profile:
    """A profile by name or TOML file, with overrides `section.key` → value, checked.

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
        section, _, name = key.partition(".")
        part = content.setdefault(section, {})
        if isinstance(part, dict):  # else the model below says what is wrong with it
            part[name] = value
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise explain(error, Profile, "flags" if key in overrides else file) from None
