"""The camera's part of a profile."""

from pydantic import Field

from firmware_config.section import Section


class CameraControls(Section):
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


class CameraConfig(Section):
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
