"""Runs in forks of one process, which has imported all that takes long: `Forks`.

As a script: arguments are the repository and data_dir; a line of stdin is a run, {"workdir": ...,
"parameters": [...], "limit": bytes that a file may have, or null}. The fork's process id is printed
and, once it has ended, {"status": ..., "err": ...}.
"""

import json
import os
import resource
import signal
import subprocess
import sys

SETTINGS = [
    "Model.network = @TwoLayers",
    "train.batch_size = 8",
    "train.log_every = 1",
    "train.checkpoint_every = 1",
    "train.eval_every = 0",
    "train.sample_every = 0",
    "sample.num_steps = 2",
]


class Forks:
    """Starts runs of a network that is nearly nothing, saved after every step."""

    def __init__(self, root, data_dir):
        script = [sys.executable, os.path.abspath(__file__), root, data_dir]
        self._process = subprocess.Popen(
            script,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )

    def start(self, workdir, *parameters, limit=None):
        """Starts a run and returns its process id; it must end before the next is started."""
        line = {"workdir": workdir, "parameters": [*SETTINGS, *parameters], "limit": limit}
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def ending(self):
        """The exit status (of a signal: minus its number) and stderr, once the run has ended."""
        line = json.loads(self._process.stdout.readline())
        return line["status"], line["err"]

    def close(self):
        self._process.communicate()


def serve(root, data_dir):
    import gin
    import keras
    import tensorflow as tf

    from bdm_tf import config
    from bdm_tf.errors import exits_on_user_error
    from bdm_tf.export import finish_run
    from bdm_tf.training.loop import train
    from bdm_tf.training.strategy import make_strategy

    @gin.register
    class TwoLayers(keras.Model):
        def __init__(self, image_shape, name=None):
            super().__init__(name=name)
            self.first = keras.layers.Conv2D(4, 3, padding="same", activation="tanh")
            self.last = keras.layers.Conv2D(image_shape[-1], 3, padding="same")
            self(tf.zeros([1, *image_shape]), tf.zeros([1]))

        def call(self, z_t, t, dropout_seed=None):
            return self.last(self.first(z_t)) + tf.reshape(t, [-1, 1, 1, 1])

    @exits_on_user_error
    def main(run):
        if run["limit"] is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (run["limit"], run["limit"]))
        config.parse(["digits.gin"], run["parameters"], [root, os.path.join(root, "gin")])
        workdir = run["workdir"]
        stopped_by = config.call(
            train,
            workdir,
            make_strategy("one_device"),
            lambda model, step: finish_run(model, step, workdir),
            data_dir=data_dir,
        )
        return 0 if stopped_by is None else 128 + stopped_by

    for line in sys.stdin:
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(theirs, 1)
            os.dup2(theirs, 2)
            os.close(ours)
            main(json.loads(line))
        print(child, flush=True)
        os.close(theirs)
        with open(ours, errors="replace") as file:
            err = file.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, "err": err[-20000:]}), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
