"""Where training runs, chosen by name."""

from __future__ import annotations

import glob
import os

import tensorflow as tf

from bdm_tf.errors import UserError

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")


def make_strategy(name: str, tpu: str | None = None) -> tf.distribute.Strategy:
    """Returns the `tf.distribute` strategy of one of `STRATEGIES`.

    Args:
        name: "auto" takes a TPU if one is attached, all GPUs if there are several, else one device.
        tpu: name or address of a Cloud TPU; None is the one attached to this machine.

    Raises:
        UserError: the hardware is not there, or the name is reserved.
    """
    if name not in STRATEGIES:
        raise UserError(f"--strategy={name} must be one of {', '.join(STRATEGIES)}")
    if name == "multi_worker":
        raise UserError("--strategy=multi_worker is reserved and not built yet; use mirrored")
    if name == "tpu" or (name == "auto" and (tpu or _tpu_attached())):
        return _tpu_strategy(tpu)
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        # Without GPUs: the logical CPUs, several only where someone asked for it.
        devices = gpus or tf.config.list_logical_devices("CPU")
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


def _tpu_attached() -> bool:
    names = "TPU_NAME" in os.environ or "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS" in os.environ
    return names or bool(glob.glob("/dev/accel*"))


def _tpu_strategy(tpu: str | None) -> tf.distribute.Strategy:
    # Without this look, the resolver asks a metadata server for minutes where there is none.
    attached = _tpu_attached() or glob.glob("/dev/vfio/[0-9]*")
    if tpu in (None, "", "local") and not attached:
        raise UserError(
            "--strategy=tpu: no TPU is attached to this machine; give --tpu=NAME or another "
            "--strategy (auto, one_device, mirrored)"
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu or "local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise UserError(f"--strategy=tpu: cannot reach {tpu or 'local'}: {error}") from error
