"""The bundled data set against scikit-learn."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from bdm_tf.data import TFDSImages
from bdm_tf.data.digits import Digits
from bdm_tf.system.errors import UserError


def expected(test):
    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
    chosen = (np.arange(len(images)) % 5 == 4) == test
    return images[chosen], digits.target[chosen]


def as_set(images):
    return sorted(image.tobytes() for image in images)


@pytest.fixture(scope="module")
def splits(digits_dir):
    return TFDSImages("digits").load(digits_dir)


def test_the_digits_are_those_of_scikit_learn(splits):
    train, evaluation = splits
    assert (train.num_images, evaluation.num_images) == (1438, 359)
    assert train.image_shape == evaluation.image_shape == (8, 8, 1)
    assert as_set(train.eval_images(1438)) == as_set(expected(False)[0])
    assert as_set(evaluation.eval_images(359)) == as_set(expected(True)[0])


def test_every_image_has_its_label(digits_dir):
    builder = Digits(data_dir=digits_dir)
    for split in ("train", "test"):
        read = list(tfds.as_numpy(builder.as_dataset(split=split)))
        images, labels = expected(split == "test")
        pairs = sorted((e["image"].tobytes(), int(e["label"])) for e in read)
        assert pairs == sorted((x.tobytes(), int(y)) for x, y in zip(images, labels))
        assert {label for _, label in pairs} == set(range(10))


def test_prepared_digits_are_read_again_and_not_made_again(digits_dir, monkeypatch):
    monkeypatch.setattr(Digits, "_generate_examples", None)
    assert TFDSImages("digits").load(digits_dir)[0].num_images == 1438


def test_a_folder_that_is_made_for_the_digits_is_named_and_a_slip_in_its_path_refused(
    tmp_path, capsys
):
    with pytest.raises(UserError, match=f"--data_dir={tmp_path}/a/b: {tmp_path}/a is not there"):
        TFDSImages("digits").load(str(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=f"--data_dir={tmp_path}/file is a file: give a folder"):
        TFDSImages("digits").load(str(tmp_path / "file"))
    TFDSImages("digits").load(str(tmp_path / "a"))
    made = f"preparing the data set 'digits' in {tmp_path}/a, a folder that is made now\n"
    assert made in capsys.readouterr().out
    TFDSImages("digits").load(str(tmp_path / "a"))
    assert "preparing" not in capsys.readouterr().out
