"""Commands of launch/, as the benchmarks call them."""

import os
import subprocess
import sys

from bdm_tf.system.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(script: str, *arguments: str, data_dir: str | None = None) -> None:
    """Runs a command of launch/, its progress on this terminal.

    Raises:
        UserError: it failed, or was stopped.
    """
    command = [sys.executable, os.path.join(ROOT, "launch", script), *arguments]
    if data_dir:
        command.append(f"--data_dir={data_dir}")
    status = subprocess.run(command).returncode
    if status:
        stopped = status < 0 or status > 128  # by a signal
        way_out = ": the same command goes on from here" if stopped else ", see above"
        raise UserError(f"{script} ended with status {status}{way_out}")
