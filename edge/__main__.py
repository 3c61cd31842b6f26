import sys

from edge.cli import run

sys.exit(run())
