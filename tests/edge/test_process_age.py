"""The age of a process, from outside and inside."""

import subprocess
import sys
import time

ASK = """import time
from edge.process_age import process_age_s
print(process_age_s(), time.monotonic())
"""
HUNDREDTH = 0.02


def test_a_process_says_how_long_ago_it_was_started() -> None:
    before_s = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True) as asked:
        after_s = time.monotonic()
        age_s, now_s = map(float, asked.communicate(timeout=30)[0].split())
    assert now_s - after_s - HUNDREDTH <= age_s <= now_s - before_s + HUNDREDTH
