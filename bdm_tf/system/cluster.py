"""The workers of a job: which of them writes, and how they come to the same decision."""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf

from bdm_tf.system.errors import TryAgain, UserError, first_line

Result = TypeVar("Result")
_CHUNK = 2**17  # of int64, in which longer messages travel: one graph serves all lengths

# What the collectives of TensorFlow raise when a worker is gone.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


class Cluster:
    """The processes that share a strategy: one, or those of a `MultiWorkerMirroredStrategy`.

    All of them must make the same calls in the same order.

    Args:
        strategy: theirs; None is this process alone.

    Attributes:
        num_workers: how many there are.
        index: which one this is; 0 is the chief, who alone writes.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None):
        self._strategy = strategy = strategy or tf.distribute.get_strategy()
        self.num_workers, self.index = 1, 0
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            names = [
                (kind, i)
                for kind in ("chief", "worker")
                for i in range(len(resolver.cluster_spec().as_dict().get(kind, ())))
            ]
            self.num_workers = max(len(names), 1)
            self.index = names.index((resolver.task_type, resolver.task_id)) if names else 0
        self._sum = tf.function(
            lambda values: strategy.reduce(
                tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, args=(values,)), axis=None
            )
        )

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    def everyone(self, numbers: Sequence[int]) -> np.ndarray:
        """What each worker says: int64 `[num_workers, len(numbers)]`, the chief's row first.

        Raises:
            TryAgain: a worker is gone.
        """
        rows = np.zeros([self.num_workers, len(numbers)], np.int64)
        rows[self.index] = numbers
        return rows if self.num_workers == 1 else self._sum_of(rows)

    def leave(self) -> None:
        """Returns when every worker has come here, where all work ends and each may exit.

        Raises:
            TryAgain: a worker is gone.
        """
        if self.num_workers == 1:
            return
        self.everyone([1])
        with contextlib.suppress(TryAgain):  # one that left before it had told all others
            self.everyone([1])
        self._wait_for_others()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Around what each worker does by itself: the `UserError` of one is everyone's.

        Raises:
            UserError: a worker raised it.
            TryAgain: a worker is gone, or raised it.
        """
        mistake = None
        try:
            yield
        except UserError as error:
            mistake = error
        failed = self.everyone([mistake is not None])[:, 0]
        if not failed.any():
            return
        if self.num_workers > 1:
            first = int(failed.argmax())
            theirs: UserError = pickle.loads(self._from(first, pickle.dumps(mistake)))
            theirs.message = f"worker {first}: {theirs.message}"
        raise self._told(mistake or theirs)

    def chief_first(self, work: Callable[[], Result]) -> Result:
        """Every worker does some work, the others when the chief has done it: see `together`."""
        if not self.is_chief:
            with self.together():
                pass
        with self.together():
            result = work()
        if self.is_chief:
            with self.together():
                pass
        return result

    def of_chief(self, work: Callable[..., Result], *arguments) -> Result:
        """What the chief, who alone does the work, makes of it; his `UserError` is everyone's.

        Args:
            work: what depends on files, or writes them; returns what `pickle` takes.
            arguments: its arguments.

        Raises:
            UserError: `work` raised it.
            TryAgain: a worker is gone.
        """
        if self.num_workers == 1:
            return work(*arguments)
        message = b""
        if self.is_chief:
            try:
                message = pickle.dumps((work(*arguments), None))
            except UserError as error:
                message = pickle.dumps((None, error))
        result, mistake = pickle.loads(self._from(0, message))
        if mistake is not None:
            raise self._told(mistake)
        return result

    def _told(self, mistake: UserError) -> UserError:
        self._wait_for_others()
        return mistake

    def _wait_for_others(self) -> None:
        """The chief is the last to exit: TensorFlow may abort a worker that is left without it."""
        if self.is_chief and self.num_workers > 1:
            time.sleep(1.0)

    def _from(self, sender: int, message: bytes) -> bytes:
        """The message of one worker; what the others give is not looked at."""
        length = int(self.everyone([len(message)])[sender, 0])
        words = np.zeros(-(-length // (8 * _CHUNK)) * _CHUNK, np.int64)
        if self.index == sender:
            words.view(np.uint8)[:length] = np.frombuffer(message, np.uint8)
        for start in range(0, len(words), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            words[chunk] = self._sum_of(words[chunk])
        return words.tobytes()[:length]

    def _sum_of(self, values: np.ndarray) -> np.ndarray:
        """The sum over all workers."""
        unsaid = [values]  # by the first of this worker's replicas, for all of them

        def say(_):
            return tf.constant(unsaid.pop() if unsaid else np.zeros_like(values))

        with self.collective():
            distributed = self._strategy.experimental_distribute_values_from_function(say)
            return self._sum(distributed).numpy()

    @contextlib.contextmanager
    def collective(self) -> Iterator[None]:
        """Around what all workers do together: the loss of one becomes `TryAgain`."""
        try:
            yield
        except _LOST as error:
            if self.num_workers == 1:
                raise
            raise TryAgain(
                f"worker {self.index} lost another worker ({first_line(error)}); start all of "
                "them again, and they go on from what was saved"
            ) from error
