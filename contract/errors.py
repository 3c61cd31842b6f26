"""The one exception that means: the user can mend this."""

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """A mistake the user can mend. Its text is one line: the thing, the place, the mend."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def nearest(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean '{close[0]}'?" if close else ""


def run_command(program: str, main: Callable[[], int]) -> int:
    """Run a command's main function; a `UserError` becomes one line on stderr and exit code 2.

    Ctrl-C ends with 130, as a shell expects, and a closed pipe on stdout (`| head`) is no error.
    """
    try:
        return main()
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
