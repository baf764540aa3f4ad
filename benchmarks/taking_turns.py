"""How a worker of `peers.py` tells what it measures."""

import json
import resource
import sys
import time


def take_turns(run, steps: int, about: dict) -> None:
    """Takes a step, says what this is, and then so many steps for each line that it reads.

    Args:
        run: takes a number of steps and waits for the last.
        steps: how many a turn has.
        about: versions.
    """
    run(1)
    print(json.dumps(about), flush=True)
    run(1)
    for _ in sys.stdin:
        began = time.perf_counter()
        run(steps)
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak_megabytes": peak}), flush=True)
