"""The one exception that means: the user can mend this."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend. Its text is one line: the thing, the place, the mend."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def nearest(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean '{close[0]}'?" if close else ""
