"""Two worker processes with TF_CONFIG measure what one does; the chief alone decides and writes."""

import os
import re
import shutil
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.evaluation.conftest import load, rows, succeeded, values
from tests.workers import endings, start_workers
from tests.workers import succeeded as all_succeeded

pytestmark = pytest.mark.slow

MULTI_WORKER = "--strategy=multi_worker"
DISTANCE = "evaluate.evaluators = [@FrechetDistance]"


def own_folders(evaluate, folder, *flags, parameters=()):
    """A command for each of two workers, whose files would be in folders of their own."""
    outputs = [
        (f"--output={folder}/{k}/r.json", f"--cache_dir={folder}/{k}/cache") for k in range(2)
    ]
    return [evaluate(*flags, MULTI_WORKER, *own, parameters=parameters) for own in outputs]


def files(folder):
    return sorted(os.path.join(path, name) for path, _, names in os.walk(folder) for name in names)


def test_two_workers_measure_what_one_process_does(tmp_path, finished_run, scored, evaluate):
    commands = own_folders(evaluate, tmp_path, f"--workdir={finished_run}")
    for k, command in enumerate(commands):
        command += [f"--save_samples={tmp_path}/{k}/s.npz", f"--export_statistics={tmp_path}/{k}"]
    before = files(finished_run)
    (told, _), second = all_succeeded(start_workers(*commands))
    assert sorted(os.listdir(tmp_path)) == ["0"] and files(finished_run) == before
    names = {os.path.basename(path) for path in files(tmp_path) if "cache" not in path}
    assert names == {"r.json", "s.npz", "train.npz"}
    one, two = load(f"{scored}/results.json"), load(f"{tmp_path}/0/r.json")
    assert two["protocol"]["replicas"] == 2 and "fd_pixels_train" in told
    assert "fd_pixels_train" not in second[0] and "img/s" not in second[1]
    # Neither the images' order nor which worker drew them shows, but for the last bits.
    images = [np.load(path)["images"] for path in (f"{scored}/samples.npz", f"{tmp_path}/0/s.npz")]
    assert len(np.unique(images[0], axis=0)) > 50
    assert np.abs(images[0].astype(int) - images[1]).max() <= 1
    for name, value in values(one).items():
        rtol = 1e-5 if name in ("loss", "bits_per_dim") else 1e-3
        np.testing.assert_allclose(values(two)[name], value, rtol=rtol, err_msg=name)
    own_weights = [results["protocol"]["weights_sha256"] for results in (one, two)]
    assert own_weights[0] == own_weights[1]


def test_a_worker_killed_midway_ends_the_other_and_the_next_two_go_on(
    tmp_path, finished_run, evaluate
):
    settings = [DISTANCE, "evaluate.num_images = 1000", "evaluate.batch_size = 100"]
    run = f"--workdir={finished_run}"
    commands = own_folders(evaluate, tmp_path, run, parameters=settings)
    chief, second = start_workers(*commands)
    seen = b""
    while chief.poll() is None:
        seen += chief.stderr.read(1)
        shown = re.findall(rb" (\d+)/1000 ", seen)
        if shown and int(shown[-1]) >= 300:
            break
    second.kill()
    status, _, err = endings([chief, second])[0]
    assert status == 75 and "worker 0 lost another worker" in err and "Traceback" not in err
    (store,) = [path for path in os.listdir(tmp_path / "0") if path.startswith("samples-")]
    batches = files(tmp_path / "0" / store)
    assert 3 <= len(batches) < 10
    os.remove(batches[0])
    with open(batches[2], "r+b") as file:
        file.truncate(100)
    (_, shown), _ = all_succeeded(start_workers(*commands))
    assert "1000/1000" in shown and os.listdir(tmp_path) == ["0"]
    whole = str(tmp_path / "whole.json")
    succeeded(evaluate(run, f"--output={whole}", parameters=settings))
    found, expected = values(load(tmp_path / "0" / "r.json")), values(load(whole))
    np.testing.assert_allclose(found["fd_pixels_train"], expected["fd_pixels_train"], rtol=1e-3)


def test_two_workers_watch_a_run(tmp_path, finished_run, evaluate):
    workdir = str(tmp_path / "run")
    shutil.copytree(finished_run, workdir)
    command = evaluate(
        f"--workdir={workdir}",
        "--watch",
        "--keep_best",
        "--num_images=0",
        MULTI_WORKER,
        parameters=["evaluate.evaluators = [@EvalLoss]"],
    )
    (told, _), (quiet, _) = all_succeeded(start_workers(command, command))
    assert [row["step"] for row in rows(workdir)] == [4, 8, 12]
    assert "every checkpoint is scored" in told and "scor" not in quiet
    assert len(os.listdir(os.path.join(workdir, "logs", "evaluation"))) == 1
    best = min(rows(workdir), key=lambda row: row["figures"]["loss"]["value"])["step"]
    kept = os.listdir(os.path.join(workdir, "checkpoints", "best"))
    assert {name.split(".")[0] for name in kept} == {f"ckpt-{best}"}


AGREEMENT = """
import os, sys
import numpy as np, tensorflow as tf
from bdm_tf.system.errors import UserError
from bdm_tf.evaluation.store import SampleStore
from bdm_tf.system.files import write_npz
from bdm_tf.replicas import on_replicas
from bdm_tf.system.cluster import Cluster
from bdm_tf.training.strategy import make_strategy

strategy = make_strategy("auto")  # which sees TF_CONFIG
cluster = Cluster(strategy)
assert cluster.num_workers == strategy.num_replicas_in_sync == 2

# What the chief makes of something is everyone's, however long; so is his mistake.
answer = {"a": np.arange(400_001) / 7, "b": (None, True, "word"), "c": np.float32(-0.0)}
said = cluster.of_chief(lambda index: {**answer, "index": index}, cluster.index)
assert said["index"] == 0 and said["b"] == answer["b"] and np.signbit(said["c"])
np.testing.assert_array_equal(said["a"], answer["a"])
def mistake():
    raise UserError(f"of worker {cluster.index}")
try:
    cluster.of_chief(mistake)
    raise SystemExit("nothing was raised")
except UserError as error:
    assert error.message == "of worker 0", error.message

for one in range(2):
    try:
        with cluster.together():
            if cluster.index == one:
                mistake()
        raise SystemExit("nothing was raised")
    except UserError as error:
        told = "" if cluster.index == one else f"worker {one}: "
        assert error.message == f"{told}of worker {one}", error.message
with cluster.together():
    pass

# An interrupted store: the chief has batch 0 and a damaged batch 8; the other would have them all.
drawn = []
double = on_replicas(strategy, lambda first: {"image": tf.cast(first[:, None] * 2, tf.uint8)})
def draw(first):
    drawn.append(first)
    return double(np.arange(first, first + 4, dtype=np.int32))["image"]
extract = on_replicas(strategy, lambda x: {"features": tf.cast(x, tf.float32) + 0.5})
folder = os.path.join(sys.argv[1], str(cluster.index))
def keep(first, image):
    os.makedirs(folder, exist_ok=True)
    write_npz(f"{folder}/batch_{first:08d}.npz", {"image": image, "features": image + 0.5})
if cluster.is_chief:
    keep(0, np.arange(100, 104, dtype=np.uint8)[:, None])
    keep(8, np.arange(4, dtype=np.uint8)[:, None])
    with open(f"{folder}/batch_00000008.npz", "r+b") as file:
        file.truncate(50)
else:
    for first in (0, 4, 8, 12):
        keep(first, np.zeros([4, 1], np.uint8))
before = sorted((name, os.stat(f"{folder}/{name}").st_mtime_ns) for name in os.listdir(folder))
store = SampleStore(folder, draw, extract, 4, cluster)
batches = list(store.batches(14))
image = np.concatenate([batch["image"] for batch in batches])[:, 0]
np.testing.assert_array_equal(image, [100, 101, 102, 103, *range(8, 28, 2)])
features = np.concatenate([batch["features"] for batch in batches])[:, 0]
np.testing.assert_array_equal(features, image + 0.5)
assert drawn == [4, 8, 12]
store.keep_images(f"{folder}/images.npz", 14)
after = sorted((name, os.stat(f"{folder}/{name}").st_mtime_ns) for name in os.listdir(folder))
if cluster.is_chief:
    np.testing.assert_array_equal(np.load(f"{folder}/images.npz")["images"][:, 0], image)
else:
    assert before == after
store.clear()
assert os.path.exists(folder) == (not cluster.is_chief)
cluster.leave()
sys.stdout.flush()
os._exit(0)
"""


def test_both_workers_take_the_chiefs_word(tmp_path):
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-c", AGREEMENT, str(tmp_path)]
    all_succeeded(start_workers(command, command))
