"""A run under way: calls to the device, cadences, logging, saving, stopping."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from bdm_tf.system.checkpoint_files import checkpoint_step
from bdm_tf.system.cluster import Cluster
from bdm_tf.system.errors import TryAgain, UserError, first_line
from bdm_tf.training.checkpoints import Checkpoints
from bdm_tf.training.signals import StopRequest
from bdm_tf.training.state import TrainState
from bdm_tf.training.trainer import Trainer
from bdm_tf.training.workdir import Workdir

# Without tqdm's own rate, which counts what is no training.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_CALL_SECONDS = 2.0  # a call to the device lasts about this long, so that a stop request is heard


@dataclass(frozen=True)
class Cadences:
    """Steps between two of a kind; 0 is never. All but `calls` also happen at the last step."""

    calls: int
    log: int
    checkpoint: int
    evaluate: int
    sample: int

    def next_stop(self, step: int, num_steps: int) -> int:
        """Steps until something is due."""
        every = (self.log, self.checkpoint, self.evaluate, self.sample)
        return min([num_steps - step] + [n - step % n for n in every if n])


class Run:
    """Takes a run's steps.

    Args:
        trainer, state: what takes them, and what they change.
        cluster: the workers, all of which take them.
        files, checkpoints: where the chief writes.
        cadences: when.
        learning_rate: of a step.
        eval_loss: measures the evaluation split.
        preview: draws uint8 samples.
        data_failure: why a batch could not be read, if an error comes from that.
    """

    def __init__(
        self,
        *,
        trainer: Trainer,
        state: TrainState,
        cluster: Cluster,
        files: Workdir,
        checkpoints: Checkpoints,
        cadences: Cadences,
        learning_rate: Callable[[int], float],
        eval_loss: Callable[[], float],
        preview: Callable[[], np.ndarray],
        data_failure: Callable[[Exception], UserError | None],
    ):
        self._trainer, self._state, self._cluster = trainer, state, cluster
        self._files, self._checkpoints, self._cadences = files, checkpoints, cadences
        self._learning_rate, self._eval_loss, self._preview = learning_rate, eval_loss, preview
        self._data_failure = data_failure

    def go(self, iterator: Iterator, start: int, num_steps: int) -> int | None:
        """Goes from step `start` to `num_steps` and saves.

        Returns:
            None, or the number of the signal that stopped it before or at the last step.

        Raises:
            UserError: the loss is no longer finite, data cannot be read, files not be written.
            TryAgain: a worker is gone.
        """
        bar = tqdm(
            desc="building the graph",
            total=num_steps,
            initial=start,
            unit="step",
            bar_format=_BAR,
            disable=not self._cluster.is_chief,
        )
        step, clock = start, _Clock(self._trainer.batch_size)
        with StopRequest() as stop, bar, contextlib.ExitStack() as exits:
            exits.callback(self._checkpoints.wait)  # an error, too, lets what is under way end
            while True:
                if step >= num_steps:  # and if a stop was asked for meanwhile, that holds
                    self._save_last(step)
                count = min(self._cadences.calls, clock.steps_in(_CALL_SECONDS))
                count = min(count, self._cadences.next_stop(step, num_steps))
                said = self._cluster.everyone([count, stop.signal_number or 0])
                count, signal_number = int(said[0, 0]), int(said[:, 1].max())
                if signal_number:
                    path = self._save_last(step)
                    bar.close()
                    where = f", saved as {path}" if self._cluster.is_chief else ""
                    print(f"stopped at step {step}{where}; the same command goes on")
                    return signal_number
                if step >= num_steps:
                    return None
                with clock.call(count):
                    records = self._steps(iterator, count)
                self._check_finite(records, step)
                step += count
                self._state.window.add(records)
                bar.set_description("training", refresh=False)
                if step - count > start:
                    bar.update(count)
                else:  # what built the graph says nothing about the time left
                    bar.initial = 0  # `reset` shows a rate from there
                    bar.reset()
                    bar.initial = bar.last_print_n = bar.n = step
                    bar.refresh()
                self._report(step, num_steps, clock, bar)

    def _steps(self, iterator: Iterator, count: int) -> np.ndarray:
        try:
            with self._cluster.collective():
                return self._trainer.run(iterator, count)
        except (tf.errors.OpError, UserError) as error:
            failure = self._data_failure(error)  # a damaged file, met while streaming
            if self._cluster.num_workers > 1:
                if failure or not isinstance(error, TryAgain):
                    reason = failure.message if failure else first_line(error)
                    self._files.leave_reason(f"worker {self._cluster.index}: {reason}")
                elif left := self._files.reason_left():
                    raise UserError(left) from error
            if failure:
                raise failure from None
            raise

    def _report(self, step: int, num_steps: int, clock: _Clock, bar: tqdm) -> None:
        """Does what is due after a step."""

        def due(cadence):
            return cadence and (step % cadence == 0 or step == num_steps)

        scalars = {}
        if due(self._cadences.log):
            scalars = self._state.window.averages()
            scalars["learning_rate"] = self._learning_rate(step - 1)
            scalars |= clock.images_per_second()
            rate = scalars.get("images_per_second", 0.0)
            shown = f"loss {scalars['loss']:.4f}, {rate / self._trainer.batch_size:.3g} step/s"
            bar.set_postfix_str(f"{shown}, {rate:.0f} img/s")
            self._state.window.clear()
        if due(self._cadences.evaluate):
            bar.set_description("measuring the evaluation loss")
            scalars["eval_loss"] = self._eval_loss()
        if scalars:
            with self._cluster.together(), self._files.writing():
                self._files.write_metrics(step, scalars)
        if due(self._cadences.checkpoint):
            bar.set_description("saving")
            self._save(step)
        if due(self._cadences.sample):
            bar.set_description("drawing a preview")
            images = self._preview()
            with self._cluster.together(), self._files.writing():
                self._files.write_samples(step, images)
        bar.set_description("training")
        if scalars:  # what was not training does not count as training time
            clock.restart()

    def _save(self, step: int, at_once: bool = False) -> str:
        self._state.window.store()
        with self._cluster.together(), self._files.writing():
            path = self._checkpoints.save(step, at_once)
        return path

    def _save_last(self, step: int) -> str:
        """Saves the step that a run ends with, unless it is saved; returns the path."""
        self._checkpoints.wait()
        latest = self._cluster.of_chief(self._checkpoints.latest)
        if latest is None or checkpoint_step(latest) < step:
            return self._save(step, at_once=True)
        return latest

    def _check_finite(self, records: np.ndarray, step: int) -> None:
        bad = ~np.isfinite(records[:, :2]).all(axis=1)
        if bad.any():
            self._checkpoints.wait()
            saved = self._checkpoints.latest() or "none was saved"
            raise UserError(
                f"the loss is not finite at step {step + int(bad.argmax()) + 1}; the last good "
                f"checkpoint ({saved}) is untouched. A lower train.learning_rate, "
                "train.clip_norm or train.warmup_steps may help."
            )


class _Clock:
    """Training speed, the first call left out: it builds the graph."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._steps_per_second: float | None = None
        self.restart()

    def restart(self) -> None:
        self._began, self._steps = time.monotonic(), 0

    def steps_in(self, seconds: float) -> int:
        return max(1, int((self._steps_per_second or 0.0) * seconds))

    @contextlib.contextmanager
    def call(self, count: int) -> Iterator[None]:
        began = time.monotonic()
        yield
        if self._steps_per_second is None:
            self._steps_per_second = 1e-9
            self.restart()
        else:
            self._steps_per_second = count / max(time.monotonic() - began, 1e-9)
            self._steps += count

    def images_per_second(self) -> dict[str, float]:
        if not self._steps:
            return {}
        elapsed = max(time.monotonic() - self._began, 1e-9)
        return {"images_per_second": self._steps * self._batch_size / elapsed}
