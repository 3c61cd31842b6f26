import sys

from trainer.cli import run

sys.exit(run())
