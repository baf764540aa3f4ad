"""Feature networks, the Inception path on a graph with the original's tensor names."""

import hashlib
import io
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.evaluation import features as features_module
from bdm_tf.evaluation.features import make_features
from bdm_tf.system.errors import UserError

CHANNELS, CLASSES = 6, 1008
RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.normal(size=(1, 1, 3, CHANNELS)).astype(np.float32)
WEIGHTS = RANDOM.normal(size=(CHANNELS, CLASSES)).astype(np.float32)
BIASES = RANDOM.normal(size=CLASSES).astype(np.float32)
IMAGES = RANDOM.integers(0, 256, (5, 8, 6, 3)).astype(np.uint8)


def write_graph(path):
    """A small network between the names, shapes and constants of classify_image_graph_def.pb."""
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        contents = v1.placeholder(tf.string, [], name="DecodeJpeg/contents")
        decoded = tf.raw_ops.DecodeJpeg(contents=contents, channels=3, name="DecodeJpeg")
        decoded = tf.ensure_shape(decoded, [None, None, 3])
        batch = tf.raw_ops.ExpandDims(
            input=tf.raw_ops.Cast(x=decoded, DstT=tf.float32, name="Cast"),
            axis=0,
            name="ExpandDims",
        )
        resized = tf.raw_ops.ResizeBilinear(images=batch, size=[299, 299], name="ResizeBilinear")
        scaled = tf.raw_ops.Mul(x=resized - 128.0, y=0.0078125, name="Mul")
        hidden = tf.nn.relu(tf.nn.conv2d(scaled, KERNEL, 1, "VALID"), name="mixed_10/join")
        pool = tf.nn.avg_pool2d(hidden, 299, 1, "VALID", name="pool_3")
        flat = tf.reshape(pool, [1, CHANNELS], name="pool_3/_reshape")
        logits = tf.raw_ops.MatMul(a=flat, b=tf.constant(WEIGHTS), name="softmax/logits/MatMul")
        logits = tf.raw_ops.BiasAdd(value=logits, bias=tf.constant(BIASES), name="softmax/logits")
        tf.nn.softmax(logits, name="softmax")
    with open(path, "wb") as file:
        file.write(graph.as_graph_def().SerializeToString())
    return str(path)


def resized_as_tf1(images):
    """Bilinear with source position i * in / out, in NumPy."""

    def along(axis, values):
        size = values.shape[axis]
        position = np.arange(299) * (size / 299)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, size - 1)
        shape = [1] * values.ndim
        shape[axis] = 299
        part = (position - low).reshape(shape)
        return np.take(values, low, axis) * (1 - part) + np.take(values, high, axis) * part

    return along(2, along(1, images.astype(np.float64)))


def expected_features(images):
    scaled = (resized_as_tf1(images) - 128.0) / 128.0
    return np.maximum(scaled @ KERNEL[0, 0].astype(np.float64), 0.0).mean((1, 2))


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory):
    return write_graph(tmp_path_factory.mktemp("inception") / "classify_image_graph_def.pb")


def test_the_frozen_graph_gives_pool_3_and_unbiased_logits_of_any_batch(graph_file):
    network = make_features(graph_file)
    found = tf.function(network.__call__)(tf.constant(IMAGES))
    expected = expected_features(IMAGES)
    np.testing.assert_allclose(found["features"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["logits"], expected @ WEIGHTS, rtol=1e-3, atol=1e-4)
    with open(graph_file, "rb") as file:
        assert network.content_hash == hashlib.sha256(file.read()).hexdigest()
    assert network.frechet_name == "fid" and network.has_logits


def test_grey_images_are_repeated_in_colour(graph_file):
    grey = IMAGES[..., :1]
    found = make_features(graph_file)(tf.constant(grey))["features"]
    expected = expected_features(np.repeat(grey, 3, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_download_is_unpacked(graph_file, tmp_path, monkeypatch):
    archive = tmp_path / "inception-2015-12-05.tgz"
    with tarfile.open(archive, "w:gz") as files:
        files.add(graph_file, "classify_image_graph_def.pb")
    asked = []

    def get_file(name, origin):
        asked.append(origin)
        return str(archive)

    monkeypatch.setattr(features_module.keras.utils, "get_file", get_file)
    network = make_features("inception")
    assert asked == [features_module.INCEPTION_URL]
    assert network.content_hash == make_features(graph_file).content_hash


def test_without_a_network_the_message_says_what_to_fetch_and_where_to_put_it(monkeypatch):
    def get_file(*_):
        raise OSError("Name or service not known")

    monkeypatch.setattr(features_module.keras.utils, "get_file", get_file)
    with pytest.raises(UserError) as error:
        make_features("inception")
    for part in ("not known", features_module.INCEPTION_URL, "--features=", ".keras"):
        assert part in error.value.message


class Network(tf.Module):
    def __init__(self):
        self.scale = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="pictures")])
    def __call__(self, images):
        mean = tf.reduce_mean(tf.cast(images, tf.float32), [1, 2])
        return {"features": self.scale * mean, "logits": mean, "rest": mean}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
    def other(self, x):
        return {"features": x}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def nameless(self, images):
        return {"embedding": tf.cast(images, tf.float32)}


def test_a_saved_model_serves_as_features(tmp_path):
    path = str(tmp_path / "mine")
    tf.saved_model.save(network := Network(), path, signatures=network.__call__)
    network = make_features(path)
    found = network(tf.constant(IMAGES))
    assert set(found) == {"features", "logits"} and network.has_logits
    np.testing.assert_allclose(found["features"], 2 * IMAGES.mean((1, 2)), rtol=1e-5)
    assert network.name == "mine" and network.frechet_name == "fd_mine"
    changed = Network()
    changed.scale.assign(3.0)
    tf.saved_model.save(changed, str(tmp_path / "changed"), signatures=changed.__call__)
    hashes = {make_features(str(tmp_path / n)).content_hash for n in ("mine", "changed")}
    assert len(hashes) == 2


def test_images_of_a_size_that_is_not_taken_are_refused(tmp_path):
    spec = tf.TensorSpec([None, 16, 16, 3], tf.uint8)
    fixed = tf.function(lambda x: {"features": tf.reshape(x, [-1, 768])}, input_signature=[spec])
    tf.saved_model.save(tf.Module(), str(tmp_path / "fixed"), signatures=fixed)
    network = make_features(str(tmp_path / "fixed"))
    for fitting in ((16, 16, 3), (16, 16, 1)):
        network.check_shape(fitting)
    with pytest.raises(UserError, match="takes images"):
        network.check_shape((8, 8, 1))


def test_pixels_are_the_images(tmp_path):
    found = make_features("pixels")(tf.constant(IMAGES))["features"]
    np.testing.assert_allclose(found, IMAGES.reshape(5, -1) / 127.5 - 1, atol=1e-6)


def test_what_is_no_feature_network_is_refused(tmp_path, graph_file):
    network = Network()
    for name in ("other", "nameless"):
        tf.saved_model.save(network, str(tmp_path / name), signatures=getattr(network, name))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pb").write_text("not a graph")
    stray = tf.compat.v1.GraphDef(node=[tf.compat.v1.NodeDef(name="a", op="NoOp")])
    (tmp_path / "stray.pb").write_bytes(stray.SerializeToString())
    (tmp_path / "weights.h5").write_bytes(io.BytesIO().getvalue())
    cases = {
        "other": "must take uint8 images",
        "nameless": "'embedding'",
        "empty": "not a SavedModel",
        "text.pb": "is no GraphDef",
        "stray.pb": "has no ExpandDims",
        "absent.pb": "cannot be read",
        "weights.h5": "must be pixels, inception",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            make_features(str(tmp_path / name))
