"""Runs one program, and starts it again whenever it ends: each process of a stack has this one as its parent.

    respawn.py HEALTHY STOP_SIGNAL UID:GID PROGRAM [ARGUMENT ...]

A program that ends before the file HEALTHY exists is not started again: this process ends as it did, and the start
counts as failed. UID:GID may be empty. The program keeps the session of this process, so `down` finds it also after
this process was killed. Standard library only, and little of it: there is one such process for each program.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

# A program that ran for a minute is started again after half a second; one that ends at once, after 15 s in the end.
FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_AFTER_S = 0.5, 15.0, 60.0


def run(healthy: str, stop_signal: int, account: str, argv: list[str]) -> int:
    """Run the program until SIGTERM, or until it ends before it was healthy; return its exit code."""
    uid, gid = map(int, account.split(":")) if account else (None, None)
    pause_s = FIRST_PAUSE_S / 2
    while True:
        began = time.monotonic()
        child = subprocess.Popen(argv, user=uid, group=gid, extra_groups=[] if account else None)
        try:
            code = child.wait()
        except SystemExit:
            child.send_signal(stop_signal)
            return child.wait()
        if not os.path.exists(healthy):  # noqa: PTH110 - pathlib would double what this process imports
            return code
        lived_s = time.monotonic() - began
        pause_s = FIRST_PAUSE_S if lived_s >= STEADY_AFTER_S else min(2 * pause_s, LONGEST_PAUSE_S)
        sys.stderr.write(f"{time.ctime()}: ended with {code} after {lived_s:.0f} s, starts again in {pause_s:.1f} s\n")
        sys.stderr.flush()
        time.sleep(pause_s)


def main(healthy: str, stop_signal: str, account: str, *argv: str) -> int:
    """Run the program; the exit code is the program's, 128 and the signal if a signal ended it."""
    # Raised wherever this process waits.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    code = run(healthy, int(stop_signal), account, list(argv))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
