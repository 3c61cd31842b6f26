"""Device profiles: everything about one box that a flag may override, checked on reading."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import UserError, nearest
from contract.validation import explain

PROFILES = Path(__file__).parent / "profiles"
DEFAULT = "default"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CameraConfig(_Section):
    """The camera asked for; what it grants may differ."""

    source: str = Field(
        "/dev/video0",
        description="/dev/videoN, an index, rtsp:// or http:// address, file, folder, or demo.",
    )
    width: int = Field(640, ge=64, le=7680, description="Width asked for, pixels.")
    height: int = Field(480, ge=64, le=4320, description="Height asked for, pixels.")
    fps: float = Field(30.0, gt=0, le=240, description="Frame rate asked for, frames per second.")


class DetectorConfig(_Section):
    """The face detector."""

    kind: Literal["auto", "yunet", "haar"] = Field(
        "auto", description="auto: YuNet where its file is found, else the built-in Haar cascade."
    )
    interval_s: float = Field(
        0.0, ge=0, le=5, description="Least time between detections, seconds; 0 is every frame."
    )


class RuntimeConfig(_Section):
    """The inference runtime."""

    bundle: Path | None = Field(
        None, description="Bundle folder; without it, the installed one, else the built-in."
    )
    backend: Literal["auto", "openvino", "onnxruntime"] = Field(
        "auto", description="auto measures both and keeps the faster that passes its check."
    )
    threads: int = Field(2, ge=1, le=64, description="Inference threads.")


class SmoothingConfig(_Section):
    """From probabilities of single frames to a label that does not flicker."""

    tau_s: float = Field(
        0.25, ge=0, le=10, description="Time constant of the moving average, seconds; 0 is none."
    )
    hysteresis: float = Field(
        0.1, ge=0, lt=1, description="Lead in probability a new label needs over the shown one."
    )
    abstain_threshold: float | None = Field(
        None, ge=0, le=1, description="Overrides the bundle's threshold for 'uncertain'."
    )


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


class Profile(_Section):
    """One box."""

    name: str = Field(description="Name of the profile.")
    camera: CameraConfig = Field(CameraConfig(), description="The camera.")
    detector: DetectorConfig = Field(DetectorConfig(), description="The face detector.")
    runtime: RuntimeConfig = Field(RuntimeConfig(), description="The inference runtime.")
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
