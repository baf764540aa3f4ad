"""Each metric against an independent implementation, on the same features."""

import numpy as np
import prdc
import pytest
import scipy.linalg
import scipy.special
import scipy.stats
from sklearn.metrics.pairwise import polynomial_kernel

from bdm_tf.evaluation import (
    FrechetDistance,
    FrechetFloor,
    InceptionScore,
    KernelDistance,
    PrecisionRecall,
)
from bdm_tf.evaluation.evaluator import Context, Unavailable
from bdm_tf.evaluation.frechet import frechet_distance
from bdm_tf.evaluation.kernel_distance import kernel_distance
from bdm_tf.evaluation.precision_recall import precision_recall
from bdm_tf.evaluation.statistics import GaussianStatistics
from bdm_tf.system.errors import UserError


def rows(count, dimensions, seed, shift=0.0):
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dimensions, dimensions))
    return (random.normal(size=(count, dimensions)) @ mixing + shift).astype(np.float32)


def statistics(features):
    found = GaussianStatistics(features.shape[1])
    found.update(features)
    return found


class Features:
    name, frechet_name, kernel_name, has_logits = "inception", "fid", "kid", True


class Real:
    """Stands for a `Reference` that knows the features of its splits."""

    def __init__(self, **splits):
        self._splits = splits

    def has(self, split):
        return split in self._splits

    has_images = has

    def describe(self, split):
        return {"split": split}

    describe_statistics = describe

    def statistics(self, split):
        return statistics(self._splits[split])

    def features(self, split, max_images):
        return self._splits[split][:max_images]


def context(num_images, **splits):
    return Context(num_images=num_images, features=Features(), reference=Real(**splits))


def batches(features, logits=None, size=64, order=None):
    starts = list(range(0, len(features), size))
    for start in np.array(starts)[order] if order is not None else starts:
        part = slice(start, start + size)
        found = {"index": np.arange(len(features))[part], "features": features[part]}
        yield {**found, "logits": logits[part]} if logits is not None else found


def test_statistics_are_those_of_numpy_whatever_the_batches():
    features = rows(1000, 12, 0, shift=1000.0)  # sums of squares would cancel here
    split = GaussianStatistics(12), GaussianStatistics(12)
    for part in np.split(features, [1, 300, 650]):
        split[0].update(part)
    other = rows(333, 12, 1)
    for part in np.array_split(other, 5):
        split[1].update(part)
    split[0].merge(split[1])
    together = np.concatenate([features, other]).astype(np.float64)
    assert split[0].count == 1333
    np.testing.assert_allclose(split[0].mu, together.mean(0), rtol=1e-12)
    np.testing.assert_allclose(split[0].sigma, np.cov(together, rowvar=False), rtol=1e-9)


def test_frechet_distance_is_scipys():
    a, b = rows(500, 20, 0), rows(400, 20, 1, shift=0.3) * 1.1
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s @ t).real
    difference = a.mean(0, np.float64) - b.mean(0, np.float64)
    expected = difference @ difference + np.trace(s + t - 2 * root)
    np.testing.assert_allclose(frechet_distance(statistics(a), statistics(b)), expected, rtol=1e-6)


@pytest.mark.parametrize("count_a, count_b", [(15, 25), (15, 500), (500, 15)])
def test_frechet_distance_of_singular_covariances_is_the_nuclear_norms(count_a, count_b):
    a, b = rows(count_a, 40, 0), rows(count_b, 40, 1, shift=0.3)
    x, y = ((v - v.mean(0, np.float64)) / np.sqrt(len(v) - 1) for v in (a, b))
    cross = np.linalg.norm(x @ y.T, "nuc")
    difference = a.mean(0, np.float64) - b.mean(0, np.float64)
    expected = difference @ difference + (x**2).sum() + (y**2).sum() - 2 * cross
    np.testing.assert_allclose(frechet_distance(statistics(a), statistics(b)), expected, rtol=1e-6)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    for count in (30, 500):
        a = statistics(rows(count, 40, 0))
        assert abs(frechet_distance(a, a)) < 1e-10 * np.trace(a.sigma)


def test_the_evaluator_streams_and_merges():
    drawn, real, new = rows(300, 8, 0), rows(500, 8, 1), rows(200, 8, 2)
    known = context(300, train=real, eval=new)
    one, other = FrechetDistance(known), FrechetDistance(known)
    for number, batch in enumerate(batches(drawn)):
        (one if number % 2 else other).update(batch)
    one.merge(other)
    figure = one.result()["fid_train"]
    expected = frechet_distance(statistics(drawn), statistics(real))
    np.testing.assert_allclose(figure["value"], expected, rtol=1e-9)
    assert (figure["num_generated"], figure["num_real"]) == (300, 500)
    floor = FrechetFloor(known).result()["fid_eval_to_train"]["value"]
    np.testing.assert_allclose(floor, frechet_distance(statistics(new), statistics(real)))
    one.start()
    one.update(next(batches(real, size=500)))
    assert one.result()["fid_train"]["value"] < 1e-9


def test_kernel_distance_is_that_of_scikit_learns_kernel_on_the_same_subsets():
    drawn, real = rows(260, 16, 0), rows(300, 16, 1, shift=0.2)
    random, expected = np.random.RandomState(2020), []
    for _ in range(7):
        x = drawn[random.choice(260, 50, replace=False)].astype(np.float64)
        y = real[random.choice(300, 50, replace=False)].astype(np.float64)
        k_xx, k_yy, k_xy = (polynomial_kernel(*p, degree=3) for p in ((x, x), (y, y), (x, y)))
        within = [k[~np.eye(50, dtype=bool)].mean() for k in (k_xx, k_yy)]
        expected.append(sum(within) - 2 * k_xy.mean())
    found = kernel_distance(drawn, real, subsets=7, subset_size=50, seed=2020)
    np.testing.assert_allclose(found, (np.mean(expected), np.std(expected)), rtol=1e-6)
    evaluator = KernelDistance(context(260, train=real), subsets=7, subset_size=50)
    for batch in batches(drawn, order=[3, 0, 4, 2, 1]):
        evaluator.update(batch)
    np.testing.assert_allclose(evaluator.result()["kid_train"]["value"], found[0], rtol=1e-6)


def test_kernel_distance_is_unbiased():
    values = [
        kernel_distance(rows(60, 4, s), rows(60, 4, s + 1), subsets=1, subset_size=60, seed=0)[0]
        for s in range(0, 400, 2)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


@pytest.mark.parametrize("count", [100, 57])
def test_inception_score_is_scipys_on_the_same_splits(count):
    logits = 3 * rows(count, 11, 0)
    p = scipy.special.softmax(logits.astype(np.float64), axis=1)
    parts = [p[k * count // 10 : (k + 1) * count // 10] for k in range(10)]
    expected = [
        np.exp(np.mean([scipy.stats.entropy(q, part.mean(0)) for q in part])) for part in parts
    ]
    one, other = (InceptionScore(context(count)) for _ in range(2))
    for number, batch in enumerate(batches(logits, logits, size=9)):
        (one if number % 2 else other).update(batch)
    one.merge(other)
    figure = one.result()["inception_score"]
    np.testing.assert_allclose(figure["value"], np.mean(expected), rtol=1e-6)
    np.testing.assert_allclose(figure["std"], np.std(expected), rtol=1e-6)


def test_inception_score_does_not_mind_impossible_classes():
    logits = np.where(np.eye(10)[np.arange(100) % 10] > 0, 0.0, -1e30).astype(np.float32)
    evaluator = InceptionScore(context(100))
    for batch in batches(logits, logits):
        evaluator.update(batch)
    np.testing.assert_allclose(evaluator.result()["inception_score"]["value"], 10.0, rtol=1e-6)


@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_precision_and_recall_are_prdcs(neighbours):
    drawn, real = rows(170, 6, 0, shift=1.0), rows(230, 6, 1)
    expected = prdc.compute_prdc(real, drawn, neighbours)
    found = precision_recall(drawn, real, neighbours, chunk=64)
    assert 0.05 < found[0] < 0.95 and 0.05 < found[1] < 0.95 and found[0] != found[1]
    np.testing.assert_allclose(found, (expected["precision"], expected["recall"]), rtol=1e-6)
    evaluator = PrecisionRecall(context(170, train=real), neighbours=neighbours)
    for batch in batches(drawn, order=[2, 0, 1]):
        evaluator.update(batch)
    result = evaluator.result()
    assert (result["precision_train"]["value"], result["recall_train"]["value"]) == found


TOO_FEW = {
    "FrechetDistance": (FrechetDistance, 1, "at least 2"),
    "KernelDistance": (KernelDistance, 999, "at least 1000"),
    "InceptionScore": (InceptionScore, 9, "at least 10"),
    "PrecisionRecall": (PrecisionRecall, 3, "at least 4"),
}


@pytest.mark.parametrize("case", TOO_FEW)
def test_a_figure_of_too_few_samples_is_left_out_with_the_number_that_is_needed(case):
    make, count, message = TOO_FEW[case]
    with pytest.raises(Unavailable, match=f"{message} samples.*there are {count}"):
        make(context(count, train=rows(2000, 4, 0)))
    with pytest.raises(Unavailable):
        make(context(0, train=rows(2000, 4, 0)))


def test_a_figure_of_too_few_real_images_is_left_out_too():
    with pytest.raises(Unavailable, match="train split has 500 images, fewer than .*size=1000"):
        KernelDistance(context(2000, train=rows(500, 4, 0)))
    with pytest.raises(Unavailable, match="train split has 3 images, too few for .*neighbours=3"):
        PrecisionRecall(context(2000, train=rows(3, 4, 0)))


NO_NUMBERS = {
    "subset_size": (KernelDistance, {"subset_size": 1}),
    "subsets": (KernelDistance, {"subsets": 0}),
    "max_images": (KernelDistance, {"max_images": 400}),
    "neighbours": (PrecisionRecall, {"neighbours": 0}),
    "splits": (InceptionScore, {"splits": 0}),
}


@pytest.mark.parametrize("case", NO_NUMBERS)
def test_settings_that_make_no_sense_are_named(case):
    make, settings = NO_NUMBERS[case]
    with pytest.raises(UserError, match=f"{make.__name__}.{case}="):
        make(context(2000, train=rows(2000, 4, 0)), **settings)


def test_a_split_that_is_not_there_leaves_its_figures_out():
    known = context(2000, train=rows(2000, 4, 0))
    for make in (FrechetDistance, KernelDistance, PrecisionRecall):
        with pytest.raises(Unavailable, match="no eval split"):
            make(known, split="eval")
        with pytest.raises(UserError, match="split='test'"):
            make(known, split="test")
