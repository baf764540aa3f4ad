"""How good are generated digits? python benchmarks/digits_quality.py --saved_model=DIR

A classifier is trained on the 1,438 real training digits. It is confident (p > 0.9) about most real
digits that it has not seen; of good samples it is confident as often, and finds all ten classes.
The Frechet distance between two halves of the real digits, pixels in [-1, 1], shows what that many
images reach at best; `launch/evaluate.py` measures samples in the same way.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from absl import app, flags
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from bdm_tf.evaluation.frechet import frechet_distance
from bdm_tf.evaluation.statistics import GaussianStatistics
from bdm_tf.system.paths import define_path

_SAVED_MODEL = define_path("saved_model", "runs/digits/saved_model", "A SavedModel.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 1000, "How many samples.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 0, "Sampling steps; 0 is the number at export.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.")


def main(_) -> None:
    pixels, labels = load_digits(return_X_y=True)
    real = np.round(pixels * (255 / 16)) / 127.5 - 1.0
    test = np.arange(len(real)) % 5 == 4
    classifier = MLPClassifier((128,), max_iter=500, random_state=0).fit(real[~test], labels[~test])
    model = tf.saved_model.load(_SAVED_MODEL.value)
    images = model.sample(
        seed=tf.constant([0, _SEED.value]),
        num_images=tf.constant(_NUM_IMAGES.value),
        num_steps=tf.constant(_NUM_STEPS.value),
        first=tf.constant(0),
    ).numpy()
    drawn = images.reshape(len(images), -1) / 127.5 - 1.0
    half = np.random.default_rng(0).permutation(len(real)) % 2 == 0
    halves = [GaussianStatistics(real.shape[1]) for _ in range(2)]
    halves[0].update(real[half])
    halves[1].update(real[~half])

    def confident(x):
        return np.mean(classifier.predict_proba(x).max(1) > 0.9)

    counts = np.bincount(classifier.predict(drawn), minlength=10)
    rows = {
        "accuracy on real test digits": f"{classifier.score(real[test], labels[test]):.3f}",
        "confident (p > 0.9) on real test digits": f"{confident(real[test]):.3f}",
        f"confident on {len(drawn)} samples": f"{confident(drawn):.3f}",
        "samples called 0 ... 9": " ".join(map(str, counts)),
        "Frechet distance, halves of the real": f"{frechet_distance(*halves):.3f}",
    }
    for name, value in rows.items():
        print(f"{name:<41} {value}")


if __name__ == "__main__":
    app.run(main)
