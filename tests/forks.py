"""Python commands as forks of one process, which has imported what takes most of their time.

As a script it reads a line of stdin for each command, {"arguments": ..., "environment": ...}; it
prints the fork's process id and, once that has ended, {"status": ..., "out": ..., "err": ...}.
What a command needs of this repository it imports itself.
"""

import atexit
import functools
import gc
import json
import os
import runpy
import selectors
import signal
import subprocess
import sys
import threading
import traceback
import types


class Forks:
    """Starts commands, one after the other: `[sys.executable, script, ...]`, or "-c" and code."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=os.path.expanduser("~"),
        )
        self._arguments: list[str] = []

    def start(self, arguments):
        """Starts a command and returns its process id; one must have ended before the next."""
        self._arguments = list(map(str, arguments))
        request = {"arguments": self._arguments[1:], "environment": dict(os.environ)}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def ending(self):
        """What `subprocess.run` returns, once the command has ended; of a signal: minus it."""
        line = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(
            self._arguments, line["status"], line["out"], line["err"]
        )

    def run(self, arguments, timeout):
        """`subprocess.run`."""
        late = threading.Timer(timeout, os.kill, (self.start(arguments), signal.SIGKILL))
        late.start()
        try:
            result = self.ending()
        finally:
            late.cancel()
        if result.returncode == -signal.SIGKILL:
            raise subprocess.TimeoutExpired(arguments, timeout, result.stdout, result.stderr)
        return result

    def close(self):
        self._process.communicate()


@functools.cache
def forks():
    """The `Forks` of this process."""
    found = Forks()
    atexit.register(found.close)
    return found


def _become(arguments, environment):
    """Is the command; never returns."""
    os.environ.update(environment)
    script, *rest = arguments
    status = 0
    try:
        if script == "-c":
            sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
        else:
            sys.argv, sys.path[0] = [script, *rest], os.path.dirname(script)
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _read(pipes):
    """What is written to pipes until all of them are closed."""
    found = {pipe: b"" for pipe in pipes}
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                text = os.read(key.fd, 2**16)
                found[key.fd] += text
                if not text:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return [text.decode(errors="replace") for text in found.values()]


def _serve():
    import keras  # noqa: F401
    import tensorflow  # noqa: F401
    import tensorflow_datasets  # noqa: F401

    gc.freeze()  # what is imported stays: no fork need look through it
    nothing = os.open(os.devnull, os.O_RDONLY)
    for line in sys.stdin:
        (out, to_out), (err, to_err) = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            for number, file in enumerate((nothing, to_out, to_err)):
                os.dup2(file, number)
            _become(**json.loads(line))
        os.close(to_out)
        os.close(to_err)
        print(child, flush=True)
        written = dict(zip(("out", "err"), _read((out, err))))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, **written}), flush=True)


if __name__ == "__main__":
    _serve()
