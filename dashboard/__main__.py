"""`python -m dashboard` is `fer-dashboard`."""

import sys

from dashboard.cli import run

if __name__ == "__main__":
    sys.exit(run())
