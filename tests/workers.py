"""Worker processes on this machine, which find each other by TF_CONFIG."""

import contextlib
import json
import os
import socket
import subprocess


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start_workers(*commands):
    """Starts a worker for each command; the chief is the first."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(len(commands))]
    workers = []
    for index, arguments in enumerate(commands):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        workers.append(
            subprocess.Popen(
                arguments,
                env={**os.environ, "TF_CONFIG": config},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=os.path.expanduser("~"),
            )
        )
    return workers


def endings(workers):
    """The exit status and what was written, `(status, stdout, stderr)`, of each."""
    found = []
    for worker in workers:
        out, err = worker.communicate(timeout=400)
        found.append((worker.returncode, out.decode(), err.decode()))
    return found


def succeeded(workers):
    """What each worker, all of which must succeed, wrote: `(stdout, stderr)`."""
    found = endings(workers)
    assert not any(status for status, _, _ in found), "\n".join(err[-3000:] for _, _, err in found)
    return [(out, err) for _, out, err in found]
