"""Camera controls by name: set after every opening, and read back to see what was refused."""

from collections.abc import Mapping

import cv2

# The switches come first: a camera refuses a value while an automatic still rules it.
CONTROLS: dict[str, int] = {
    "exposure_auto": cv2.CAP_PROP_AUTO_EXPOSURE,
    "white_balance_auto": cv2.CAP_PROP_AUTO_WB,
    "focus_auto": cv2.CAP_PROP_AUTOFOCUS,
    "exposure": cv2.CAP_PROP_EXPOSURE,
    "white_balance_temperature": cv2.CAP_PROP_WB_TEMPERATURE,
    "focus": cv2.CAP_PROP_FOCUS,
    "brightness": cv2.CAP_PROP_BRIGHTNESS,
    "contrast": cv2.CAP_PROP_CONTRAST,
    "saturation": cv2.CAP_PROP_SATURATION,
    "hue": cv2.CAP_PROP_HUE,
    "gain": cv2.CAP_PROP_GAIN,
    "gamma": cv2.CAP_PROP_GAMMA,
    "sharpness": cv2.CAP_PROP_SHARPNESS,
    "backlight_compensation": cv2.CAP_PROP_BACKLIGHT,
    "zoom": cv2.CAP_PROP_ZOOM,
    "pan": cv2.CAP_PROP_PAN,
    "tilt": cv2.CAP_PROP_TILT,
}


def apply_controls(capture: cv2.VideoCapture, controls: Mapping[str, int]) -> tuple[str, ...]:
    """Set every control that is named, then read all back; a line for each that is not as asked.

    Values are those of the driver (`v4l2-ctl --list-ctrls`). They are read after all are set, as
    one may change another. Raises `ValueError` for a name that is not in `CONTROLS`.
    """
    wanted = sorted(controls, key=list(CONTROLS).index)
    taken = {name: capture.set(CONTROLS[name], controls[name]) for name in wanted}
    notes = []
    for name in wanted:
        now = round(capture.get(CONTROLS[name]))
        if not taken[name]:
            notes.append(f"control {name}: the camera refused {controls[name]}")
        elif now != controls[name]:
            notes.append(f"control {name}: asked {controls[name]}, got {now}")
    return tuple(notes)
