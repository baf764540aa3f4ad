"""Following a run: every checkpoint is scored once, as it lands."""

from __future__ import annotations

import os
import time

import tensorflow as tf

from bdm_tf import config
from bdm_tf.evaluation.job import Evaluation
from bdm_tf.evaluation.results import ResultLog, key_of, table
from bdm_tf.evaluation.subjects import TrainedRun
from bdm_tf.system.checkpoint_files import (
    BrokenCheckpoint,
    checkpoint_step,
    copy_to_best,
    keep_one_best,
    saved_checkpoints,
)
from bdm_tf.system.errors import TryAgain, UserError, first_line
from bdm_tf.system.files import why_not_written, writing


def wait_for_run(workdir: str, poll_seconds: float = 2.0) -> None:
    """Returns when a run has begun in `workdir`."""
    path = os.path.join(workdir, "config.gin")
    if not tf.io.gfile.exists(path):
        print(f"waiting for a run to begin in {workdir}", flush=True)
    while not tf.io.gfile.exists(path):
        time.sleep(poll_seconds)


def watch(
    evaluation: Evaluation, run: TrainedRun, workdir: str, *, keep_best: bool, poll_seconds=5.0
) -> None:
    """Scores a run's checkpoints, oldest first, until training has ended and all are scored.

    Writes a row of `results.jsonl` and TensorBoard scalars for each. Rows that are there already,
    of the same protocol, are not measured again. A checkpoint that training deletes before its
    turn, or that cannot be read, is passed over. The chief says whose turn it is.

    Args:
        evaluation: how to score.
        run: the run in `workdir`, which `evaluation` scores.
        workdir: the run's folder.
        keep_best: keep the best checkpoint so far in `checkpoints/best`.
        poll_seconds: how often to look.
    """
    directory = os.path.join(workdir, "checkpoints")
    log = ResultLog(os.path.join(workdir, "results.jsonl"))
    key = key_of(evaluation.protocol(), ignore=("step", "weights_sha256", "prior_sha256"))
    cluster = evaluation.cluster
    summaries = None
    if cluster.is_chief:
        logs = os.path.join(workdir, "logs", "evaluation")
        with writing(logs):
            summaries = tf.summary.create_file_writer(logs)
    lost: set[int] = set()

    def scored() -> set[int]:
        return {row["step"] for row in log.rows if row["key"] == key}

    def pending() -> list[str]:
        done = scored() | lost
        return [p for p in saved_checkpoints(directory) if checkpoint_step(p) not in done]

    def ended() -> bool:
        return _last_step(workdir) in scored() | lost

    def next_turn() -> str | None:
        if not saved_checkpoints(directory):
            print(f"waiting for a checkpoint in {directory}", flush=True)
        while not (waiting := pending()):
            if ended():
                return None
            time.sleep(poll_seconds)
        return waiting[0]

    def keep() -> None:
        _keep_best(evaluation, directory, [r for r in log.rows if r["key"] == key])

    while checkpoint := cluster.of_chief(next_turn):
        step = checkpoint_step(checkpoint)
        failure = ""
        with cluster.together():
            try:
                run.restore(checkpoint)
                if keep_best and cluster.is_chief:
                    _copy_to_best(checkpoint)  # training may delete it meanwhile
            except (BrokenCheckpoint, TryAgain, tf.errors.OpError, OSError) as error:
                there = tf.io.gfile.exists(f"{checkpoint}.index")
                what = "cannot be read" if there else "was deleted before its turn"
                failure = f"step {step} {what} ({first_line(error)}): passed over"
                print(failure, flush=True)
        if cluster.everyone([bool(failure)]).any():
            lost.add(step)
            continue
        if cluster.is_chief:
            print(f"scoring step {step}", flush=True)
        results = evaluation.score(workdir)
        with cluster.together():
            if cluster.is_chief:
                log.append({"step": step, "key": key, **results})
                with writing(os.path.join(workdir, "logs")):
                    _write_scalars(summaries, step, results)
                print(table(results), flush=True)
        evaluation.clear()
        with cluster.together():
            if keep_best and cluster.is_chief:
                keep()
    if cluster.is_chief:
        if keep_best:  # the rows may be older than the wish
            keep()
        print(f"training has ended at step {_last_step(workdir)}; every checkpoint is scored")
    cluster.leave()


def _copy_to_best(checkpoint: str) -> None:
    try:
        copy_to_best(checkpoint)
    except (tf.errors.OpError, OSError) as error:
        if not tf.io.gfile.exists(f"{checkpoint}.index"):
            raise
        raise UserError(
            f"{checkpoint} cannot be copied to checkpoints/best: {why_not_written(error)}"
        ) from error


def _write_scalars(summaries: tf.summary.SummaryWriter, step: int, results: dict) -> None:
    with summaries.as_default():
        for name, figure in results["figures"].items():
            if figure["value"] is not None:
                tf.summary.scalar(f"evaluation/{name}", figure["value"], step=step)
    summaries.flush()


def _keep_best(evaluation: Evaluation, directory: str, rows: list[dict]) -> None:
    """Keeps, of the scored checkpoints that are still there, the best one in `best`."""
    there = {checkpoint_step(path): path for path in saved_checkpoints(directory)}
    name = evaluation.best_by
    values = {
        row["step"]: row["figures"][name]["value"]
        for row in rows
        if row["step"] in there and row["figures"][name]["value"] is not None
    }
    if not values:
        return
    best = min(values, key=lambda step: values[step])
    _copy_to_best(there[best])
    keep_one_best(directory, best)
    print(f"best so far by {name}: step {best}", flush=True)


def _last_step(workdir: str) -> int:
    """The step at which the run ends; it may change while the run is stopped."""
    with tf.io.gfile.GFile(os.path.join(workdir, "config.gin")) as file:
        return int(config.parameters(file.read())["train.num_steps"])
