"""`make fuzz`: tries new examples of each property for a minute; a failure is shown as hypothesis shows it."""

from __future__ import annotations

import signal
import sys
import time
import traceback

from hypothesis import HealthCheck, settings

from tests.fuzz import test_parsers

EXAMPLES = 500
# For a whole batch of examples, also on a busy machine.
HANGS_AFTER_S = 600


def main(seconds: float, part: str) -> int:
    """Try each property with this part in its name for so many seconds; return the number of those that failed."""
    failed = 0
    for name, tried in vars(test_parsers).items():
        if not name.startswith("test_") or part not in name:
            continue
        batch = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))(tried)
        until, runs = time.monotonic() + seconds, 0
        try:
            while time.monotonic() < until:
                signal.alarm(HANGS_AFTER_S)
                batch()
                runs += 1
            print(f"{name}: {runs * EXAMPLES} examples, no foreign error", flush=True)
        except Exception:  # noqa: BLE001 - the others are tried, too
            failed += 1
            traceback.print_exc()
            print(f"{name}: FAILED", flush=True)
        finally:
            signal.alarm(0)
    return failed


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("a parser hangs")))
    given = dict(enumerate(sys.argv))
    sys.exit(min(1, main(float(given.get(1, 60)), given.get(2, ""))))
