"""Networks whose features images are compared in: Inception, any SavedModel, or the pixels."""

from __future__ import annotations

import hashlib
import os
import tarfile

import gin
import keras
import numpy as np
import tensorflow as tf

from bdm_tf.saved_models import no_saved_model
from bdm_tf.system.errors import UserError, check_text
from bdm_tf.system.paths import check_home, expanded

INCEPTION_URL = "https://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz"
_GRAPH_FILE = "classify_image_graph_def.pb"
# The names in that graph: what its resizing takes, the pooled features, the unbiased logits.
_IMAGES, _POOL, _LOGITS = "ExpandDims", "pool_3", "softmax/logits/MatMul"


class FeatureNetwork:
    """Maps uint8 images `[N, H, W, C]` to `features` [N, d] and perhaps `logits` [N, k].

    Attributes:
        name: a word for file names and results.
        frechet_name, kernel_name: what distances in these features are called.
        content_hash: SHA-256 of the network.
        resize: in words, what becomes of the images' size.
        has_logits: whether there are logits.
    """

    name: str
    frechet_name: str
    kernel_name: str
    content_hash: str
    resize: str
    has_logits = False

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        raise NotImplementedError

    def check_shape(self, image_shape: tuple[int, int, int]) -> None:
        """Raises a `UserError` where images `(H, W, C)` are not taken."""

    def describe(self) -> dict[str, str]:
        """What a result must say about the network."""
        return {
            "features": self.name,
            "features_sha256": self.content_hash,
            "features_resize": self.resize,
        }


@gin.register
class PixelFeatures(FeatureNetwork):
    """The pixels themselves, in [-1, 1]: for small images such as the digits."""

    name, frechet_name, kernel_name, resize = "pixels", "fd_pixels", "kd_pixels", "none"
    content_hash = hashlib.sha256(b"pixels / 127.5 - 1").hexdigest()

    def __call__(self, images):
        flat = tf.reshape(images, [tf.shape(images)[0], int(np.prod(images.shape[1:]))])
        return {"features": tf.cast(flat, tf.float32) / 127.5 - 1.0}


@gin.register
class InceptionFeatures(FeatureNetwork):
    """The network of the FID: Inception, 2015-12-05, `pool_3` and its 1,008 logits.

    Images are resized to 299x299 inside the graph, by TensorFlow 1's bilinear rule. The logits are
    those before the bias is added, as in the original Inception Score. Grey images are repeated
    in three channels.

    Args:
        path: `classify_image_graph_def.pb` (`~` is the home folder); None downloads it once.

    Raises:
        UserError: the file is not there, cannot be fetched, or is not that graph.
    """

    name, frechet_name, kernel_name = "inception-2015-12-05", "fid", "kid"
    has_logits = True
    resize = "TF1 bilinear to 299x299, in the graph"

    def __init__(self, path: str | None = None):
        if path is not None:
            check_text("InceptionFeatures", path=path)
            path = expanded("--features", path)
        content = _downloaded() if path is None else _read(path)
        self.content_hash = hashlib.sha256(content).hexdigest()
        graph_def = tf.compat.v1.GraphDef()
        try:
            graph_def.ParseFromString(content)
        except Exception as error:  # protobuf's DecodeError is of another type in each version
            raise UserError(_not_inception(path, "it is no GraphDef")) from error
        nodes = {node.name: node for node in graph_def.node}
        missing = [name for name in (_IMAGES, _POOL, _LOGITS) if name not in nodes]
        if missing:
            raise UserError(_not_inception(path, f"it has no {missing[0]}"))
        # What lies between, reshapes to a single image, is left out.
        weights_name = nodes[_LOGITS].input[1]
        graph_def = tf.compat.v1.graph_util.extract_sub_graph(graph_def, [_POOL, weights_name])

        def run(images):
            pool, weights = tf.graph_util.import_graph_def(
                graph_def, {f"{_IMAGES}:0": images}, [f"{_POOL}:0", f"{weights_name}:0"]
            )
            features = tf.reshape(pool, [tf.shape(images)[0], weights.shape[0]])
            return {"features": features, "logits": tf.matmul(features, weights)}

        self._run = tf.function(run, input_signature=[tf.TensorSpec([None, None, None, 3])])

    def __call__(self, images):
        return self._run(tf.cast(_in_colour(images), tf.float32))


@gin.register
class SavedModelFeatures(FeatureNetwork):
    """A SavedModel whose `serving_default` maps uint8 images to `features` (and `logits`).

    Args:
        path: its folder, in which `~` is the home folder.

    Raises:
        UserError: it is no such SavedModel.
    """

    def __init__(self, path: str):
        check_text("SavedModelFeatures", path=path)
        path = expanded("--features", path)
        if not tf.saved_model.contains_saved_model(path):
            raise UserError(f"--features={path} {no_saved_model(path)}")
        self.content_hash = _folder_hash(path)
        self.name = os.path.basename(os.path.normpath(path))
        self.frechet_name, self.kernel_name = f"fd_{self.name}", f"kd_{self.name}"
        self.resize = "in the SavedModel"
        try:
            self._model = tf.saved_model.load(path)
            signature = self._model.signatures["serving_default"]
        except (KeyError, OSError, tf.errors.OpError) as error:
            raise UserError(f"--features={path} has no signature serving_default") from error
        inputs = signature.structured_input_signature[1]
        outputs = signature.structured_outputs
        if len(inputs) != 1 or "features" not in outputs:
            raise UserError(
                f"--features={path} maps {sorted(inputs)} to {sorted(outputs)}; it must map one "
                "tensor of uint8 images to 'features'"
            )
        ((self._input, spec),) = inputs.items()
        if spec.dtype != tf.uint8 or spec.shape.rank != 4:
            raise UserError(
                f"--features={path} takes {spec.dtype.name} {spec.shape}; it must take uint8 "
                "images [N, H, W, C]"
            )
        self._spec, self._signature = spec, signature
        self.has_logits = "logits" in outputs

    def check_shape(self, image_shape):
        height, width, channels = image_shape
        if channels == 1 and self._spec.shape[3] == 3:
            channels = 3  # grey is repeated
        if not self._spec.shape.is_compatible_with([None, height, width, channels]):
            raise UserError(
                f"--features={self.name} takes images {self._spec.shape}, these are {image_shape}"
            )

    def __call__(self, images):
        if self._spec.shape[3] == 3:
            images = _in_colour(images)
        found = self._signature(**{self._input: images})
        return {key: found[key] for key in ("features", "logits") if key in found}


def make_features(flag: str) -> FeatureNetwork:
    """The network that `--features` names.

    Args:
        flag: "pixels", "inception", a frozen Inception graph (.pb), or a SavedModel's folder.

    Raises:
        UserError: nothing of the kind is there.
    """
    if flag == "pixels":
        return PixelFeatures()
    if flag == "inception":
        return InceptionFeatures()
    if tf.io.gfile.isdir(flag):
        return SavedModelFeatures(flag)
    if flag.endswith(".pb"):
        return InceptionFeatures(flag)
    raise UserError(
        f"--features={flag} must be pixels, inception, a frozen graph {_GRAPH_FILE}, or the "
        "folder of a SavedModel"
    )


def _in_colour(images: tf.Tensor) -> tf.Tensor:
    return tf.repeat(images, 3, axis=3) if images.shape[3] == 1 else images


def _read(path: str) -> bytes:
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"--features={path} cannot be read: {error}") from error


def _downloaded() -> bytes:
    name = os.path.basename(INCEPTION_URL)
    check_home("--features")
    try:
        archive = keras.utils.get_file(name, INCEPTION_URL)
        with tarfile.open(archive) as files:
            member = files.extractfile(_GRAPH_FILE)
            assert member is not None, f"{archive} has no {_GRAPH_FILE}"
            return member.read()
    except Exception as error:  # whatever a download, a disk or an archive can raise
        cache = os.path.join(os.path.expanduser("~"), ".keras", "datasets", name)
        raise UserError(
            f"the Inception network could not be fetched: {error}.\nDownload {INCEPTION_URL} on a "
            f"machine with a network, and either put it at {cache} or unpack it and give "
            f"--features=.../{_GRAPH_FILE}"
        ) from error


def _not_inception(path: str | None, reason: str) -> str:
    source = f"--features={path}" if path else "the downloaded file"
    return f"{source} is not the frozen Inception graph {_GRAPH_FILE}: {reason}"


def _folder_hash(path: str) -> str:
    found = hashlib.sha256()
    for root, _, names in sorted(tf.io.gfile.walk(path)):
        for name in sorted(names):
            file = os.path.join(root, name)
            with tf.io.gfile.GFile(file, "rb") as content:
                digest = hashlib.sha256(content.read()).hexdigest()
            found.update(f"{os.path.relpath(file, path)} {digest}\n".encode())
    return found.hexdigest()
