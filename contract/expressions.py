"""The seven expressions, in the one order used everywhere."""

EXPRESSIONS: tuple[str, ...] = (
    "angry",
    "disgust",
    "fear",
    "happy",
    "sad",
    "surprise",
    "neutral",
)

UNCERTAIN = "uncertain"
"""Shown instead of an expression when the smoothed confidence is under the abstain threshold."""

LOW_QUALITY = "low_quality"
"""Shown in place of an expression for a face that is too small, dark, blurred or turned away."""

INDEX: dict[str, int] = {name: i for i, name in enumerate(EXPRESSIONS)}
