"""How long this program runs, from its very first instruction, before Python's own."""

import os
import time
from pathlib import Path

STARTED_FIELD = 22
"""Of `/proc/PID/stat`, counted from 1 (proc(5)): the start, in ticks since the machine's."""


def process_age_s(stat: Path = Path("/proc/self/stat")) -> float:
    """Seconds since this process was started, to a hundredth.

    On the clock that counts from the machine's start: the wall clock says to a second when that
    was, so an age worked out from it may be off by as much, and jumps when the clock is set.
    """
    # The name, in parentheses, may hold spaces; the third field follows it.
    fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    started_s = int(fields[STARTED_FIELD - 3]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
