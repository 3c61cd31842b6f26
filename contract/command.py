"""How every command of the project behaves: one line and exit code 2 for a user's mistake."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from contract.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other user's mistake."""

    def error(self, message: str) -> NoReturn:
        """Raises `UserError`."""
        raise UserError(f"{message}; see {self.prog} --help")


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
