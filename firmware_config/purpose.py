"""What a box is for, what may not be, and what the people before its camera must be told.

Regulation (EU) 2024/1689 (AI Act): Art. 5(1)(f) prohibits inferring emotions at work and in
education except for medical or safety reasons; Art. 50(3) has people informed who are exposed.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from contract.errors import UserError

Purpose = Literal[
    "private", "demonstration", "research", "public", "workplace", "education", "medical", "safety"
]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
PROHIBITED: tuple[Purpose, ...] = ("workplace", "education")
EXCEPTIONS: tuple[Purpose, ...] = ("medical", "safety")


def refusal(purpose: Sequence[Purpose]) -> str | None:
    """Why a box may not run for `purpose`, in one line; None if it may."""
    place = next((word for word in purpose if word in PROHIBITED), None)
    if place is None or any(word in EXCEPTIONS for word in purpose):
        return None
    return (
        f"'{place}' alone is refused: inferring emotions at work or in education is prohibited in "
        f"the EU (AI Act, Art. 5(1)(f)) except for medical or safety reasons; where one of them is "
        f'why, declare it: purpose = ["{place}", "safety"]'
    )


def require_purpose(purpose: Sequence[Purpose], place: str) -> None:
    """Raises `UserError` for a profile, named by `place`, that is to be deployed for nothing."""
    if not purpose:
        raise UserError(
            f"{place}: purpose: a deployed profile says what the box is for, as purpose = "
            f'["research"] at its top (any of {" ".join(PURPOSES)})'
        )


def notice_text(purpose: Sequence[Purpose], *, logged: bool, sent: bool) -> str:
    """What people before the camera must be told.

    `logged` and `sent` say what is done with the estimates: kept on the box, told to other systems.
    """
    why = f" Purpose: {', '.join(purpose)}." if purpose else ""
    done = [word for word, is_so in (("logged", logged), ("sent to other systems", sent)) if is_so]
    kept = f"; the estimates are {' and '.join(done)}" if done else ", nor are the estimates"
    return (
        "A camera films this place, and an AI system estimates facial expressions from it."
        f"{why} Pictures are not stored{kept}. An expression is not a feeling, and estimates may "
        "be wrong."
    )
