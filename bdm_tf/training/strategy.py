"""Where training runs, chosen by name."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import json
import os
import signal
import socket
import time

import tensorflow as tf

from bdm_tf.system.errors import TryAgain, UserError, first_line

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
_EXAMPLE = (
    'On the first of two hosts it is {"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def make_strategy(name: str, tpu: str | None = None) -> tf.distribute.Strategy:
    """The `tf.distribute` strategy of one of `STRATEGIES`; to be made before anything else is.

    Args:
        name: "auto" takes several workers if `TF_CONFIG` names them, a TPU if one is attached, all
            GPUs if there are several, else one device.
        tpu: name or address of a Cloud TPU; None is the one attached to this machine.

    Raises:
        UserError: the hardware is not there, or `TF_CONFIG` does not describe the workers.
    """
    if name not in STRATEGIES:
        raise UserError(f"--strategy={name} must be one of {', '.join(STRATEGIES)}")
    if tpu and name not in ("auto", "tpu"):
        raise UserError(f"--tpu={tpu} goes with --strategy=tpu, not with --strategy={name}")
    if name == "multi_worker" or (name == "auto" and _num_workers() > 1 and not tpu):
        return _multi_worker_strategy()
    if name == "tpu" or (name == "auto" and (tpu or _tpu_attached())):
        return _tpu_strategy(tpu)
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        # Without GPUs: the logical CPUs, several only where someone asked for it.
        devices = gpus or tf.config.list_logical_devices("CPU")
        if not gpus and len(devices) == 1:
            raise UserError(
                "--strategy=mirrored: TensorFlow sees no GPU here; --strategy=one_device takes the "
                "CPU"
            )
        return tf.distribute.MirroredStrategy([d.name for d in devices])
    return tf.distribute.OneDeviceStrategy(gpus[0].name if gpus else "/cpu:0")


def default_jit_compile(strategy: tf.distribute.Strategy) -> bool:
    """Whether XLA compiles the step when `train.jit_compile` does not say.

    On two CPU cores it brought a gradient of the digits' UNet no more than 15% either way (500
    against 450 ms, 541 against 597 ms at batch 128) for a longer start, so there it does not. GPUs
    were not measured. Several of them cannot reduce inside an XLA cluster; a TPU compiles always.
    """
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    return on_gpu and strategy.num_replicas_in_sync == 1


def describe(strategy: tf.distribute.Strategy) -> str:
    """What a strategy runs on, in words."""
    replicas = strategy.num_replicas_in_sync
    if isinstance(strategy, tf.distribute.TPUStrategy):
        topology = strategy.extended._topology  # what initialize_tpu_system found; no public name
        mesh = "x".join(str(n) for n in topology.mesh_shape)
        return f"TPU: {replicas} cores in a {mesh} mesh, {topology.num_tasks} host(s)"
    try:
        devices = [device.rpartition("/device:")[2] for device in strategy.extended.worker_devices]
    except RuntimeError:  # what tf.distribute.get_strategy() gives has none of its own
        devices = ["TensorFlow's default device"]
    workers = ""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        workers = f", {_num_workers()} worker(s)"
    return f"{replicas} replica(s){workers}, here {', '.join(devices)}"


def _num_workers() -> int:
    return sum(len(tasks) for tasks in _cluster().get("cluster", {}).values())


def _cluster() -> dict:
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        found = json.loads(text)
        kinds = set(found.get("cluster", {}))
        task = found.get("task", {})
        if kinds and not 0 <= task["index"] < len(found["cluster"][task["type"]]):
            raise ValueError(f"it has no task {task}")
        if kinds - {"chief", "worker"}:
            raise ValueError(f"only chief and worker take part, not {sorted(kinds)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG={text!r} does not describe workers ({error}). {_EXAMPLE}"
        ) from error
    return found


def _multi_worker_strategy() -> tf.distribute.Strategy:
    if not _num_workers():
        raise UserError(f"--strategy=multi_worker: TF_CONFIG names no workers. {_EXAMPLE}")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _wait_for_workers(_cluster())
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, OSError, tf.errors.OpError) as error:
        raise TryAgain(
            f"--strategy=multi_worker: the workers do not find together: {error}"
        ) from error
    with contextlib.suppress(ValueError):  # of a thread that is not the main one
        signal.signal(signal.SIGTERM, on_sigterm)  # TensorFlow's own handler does nothing at all
    return strategy


def _wait_for_workers(cluster: dict, every_seconds: float = 60.0) -> None:
    """Returns when all workers can be reached, and says from time to time which cannot.

    TensorFlow's own waiting, which follows, is silent and deaf to signals.

    Raises:
        OSError: this worker's port is in use.
    """
    task = cluster["task"]
    own = cluster["cluster"][task["type"]][task["index"]]
    awaited = [a for tasks in cluster["cluster"].values() for a in tasks if a != own]
    print(f"waiting for {len(awaited) + 1} worker(s)", flush=True)
    said = time.monotonic()
    with _listener(_host_and_port(own)[1]):  # by which the others see this one
        while awaited := [address for address in awaited if not _answers(address)]:
            if time.monotonic() - said > every_seconds:
                said = time.monotonic()
                print(f"still waiting for {', '.join(awaited)}", flush=True)
            time.sleep(0.2)


def _listener(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_host_and_port(address), timeout=2.0).close()
    except OSError:
        return False
    return True


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _tpu_attached() -> bool:
    """Whether there is a TPU: by name, by its device files, by those that any card may have."""
    if os.environ.get("TPU_NAME") or os.environ.get("KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS"):
        return True
    if glob.glob("/dev/accel*"):
        return True
    # Newer TPU VMs; but a host that hands its GPUs to virtual machines has such files, too.
    return bool(glob.glob("/dev/vfio/[0-9]*")) and importlib.util.find_spec("libtpu") is not None


def _tpu_strategy(tpu: str | None) -> tf.distribute.Strategy:
    # Without this look, the resolver asks a metadata server for minutes where there is none.
    attached = _tpu_attached() or glob.glob("/dev/vfio/[0-9]*")
    tpu = tpu or os.environ.get("TPU_NAME") or "local"
    if tpu == "local" and not attached:
        raise UserError(
            "--strategy=tpu: no TPU is attached to this machine; give --tpu=NAME or another "
            "--strategy (auto, one_device, mirrored)"
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise UserError(f"--strategy=tpu: cannot reach {tpu}: {first_line(error)}") from error
