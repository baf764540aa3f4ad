"""Figures of processes: what is drawn is what the equations say, and what the command says."""

import os

import gin
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import colormaps
from PIL import Image

from bdm_tf import exporting  # noqa: F401, for gin
from bdm_tf.data import TFDSImages
from bdm_tf.diffusion import (
    BlurringProcess,
    BlurSchedule,
    ConstantNoise,
    CumulativeBlur,
    GeometricNoise,
    LogBlur,
)
from bdm_tf.process_figures import draw_to_file
from bdm_tf.process_figures.drawing import (
    diffused,
    draw_process,
    draw_snr,
    draw_spaces,
    log_magnitudes,
    log_snr,
)
from bdm_tf.system.errors import UserError
from bdm_tf.training import loop  # noqa: F401, for gin
from tests import oracle
from tests.conftest import ROOT, command, run, run_afresh

pytestmark = pytest.mark.slow

SHAPE = (8, 6, 3)
TIMES = np.linspace(0.0, 1.0, 5)
GIN = os.path.join(ROOT, "gin")
DIGITS = os.path.join(GIN, "digits")


def blurring(sigma_blur_max=4.0):
    return BlurringProcess(SHAPE, blur=BlurSchedule(sigma_blur_max))


def others():
    return {
        "ihdm": BlurringProcess(SHAPE, noise=ConstantNoise(0.02), blur=LogBlur(num_steps=200)),
        "cold": BlurringProcess(SHAPE, noise=ConstantNoise(0.0), blur=CumulativeBlur()),
        "soft": BlurringProcess(SHAPE, noise=GeometricNoise(), blur=LogBlur(0.01, 11.5)),
    }


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, *SHAPE), dtype=np.uint8)


@pytest.fixture
def white():
    return np.random.default_rng(1).standard_normal((2, *SHAPE)).astype(np.float32)


@pytest.fixture
def clean_gin():
    yield
    gin.clear_config()


def expected_z(images, white, sigma_blur_max):
    """z_t `[N, T, H, W, C]` by the oracle, in float64."""
    u_x = oracle.to_frequency(images / 127.5 - 1.0)
    columns = []
    for t in TIMES:
        alpha, sigma = oracle.alpha_sigma([t], *SHAPE[:2], sigma_blur_max)
        columns.append(oracle.to_pixel(alpha * u_x) + sigma * white)
    return np.stack(columns, axis=1)


def drawn_cells(figure):
    """The cells `[rows, columns, H, W, 3]` of a figure, found by its ticks."""
    axes = figure.axes[0]
    canvas = np.asarray(axes.images[0].get_array())
    factor = round((2 * axes.get_yticks()[0] + 1) / SHAPE[0])
    places = []
    for centres, size in ((axes.get_yticks(), SHAPE[0]), (axes.get_xticks(), SHAPE[1])):
        starts = [round(centre - (factor * size - 1) / 2) for centre in centres]
        places.append([slice(start, start + factor * size, factor) for start in starts])
    rows, columns = places
    return np.array([[canvas[row, column] for column in columns] for row in rows])


@pytest.mark.parametrize("sigma_blur_max", [0.0, 4.0])
def test_a_cell_holds_z_t_of_its_row_and_column(sigma_blur_max, images, white):
    processes = [blurring(sigma_blur_max), blurring(1.0)]
    cells = drawn_cells(draw_process(["a", "b"], processes, images, TIMES, white))
    assert cells.shape == (4, 5, *SHAPE)
    for rows, blur in ((cells[:2], sigma_blur_max), (cells[2:], 1.0)):
        grey = (np.clip(expected_z(images, white, blur), -1.0, 1.0) + 1.0) * 127.5
        assert np.abs(rows - grey).max() <= 0.501  # rounded to the nearest


@pytest.mark.parametrize("name", ["ihdm", "cold", "soft"])
def test_every_time_of_other_processes_is_a_draw_of_their_own(name, images, white):
    process = others()[name]
    z = diffused(process, images, TIMES, white)
    x = images / np.float32(127.5) - 1.0
    for column, t in enumerate(TIMES):
        alone = process.diffuse(tf.constant(x), tf.fill([2], np.float32(t)), tf.constant(white))
        np.testing.assert_allclose(z[:, column], alone, atol=1e-6)
    assert np.abs(z[:, 0] - x).max() < 0.1
    assert np.abs(z[:, -1] - x).max() > 0.3


def test_all_rows_and_times_share_the_noise(images, white):
    still = diffused(blurring(), images, np.array([1.0, 1.0]), white)
    np.testing.assert_array_equal(still[:, 0], still[:, 1])
    np.testing.assert_allclose(still[:, 0], white, atol=0.05)


def test_coefficients_lie_below_their_image(images, white):
    z = diffused(blurring(), images, TIMES, white)
    found = log_magnitudes(blurring(), z)
    expected = oracle.to_frequency(z.astype(np.float64).reshape(-1, *SHAPE))
    expected = np.log10(np.abs(expected).mean(-1)).reshape(found.shape)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    figure = draw_spaces(["a"], [blurring()], images, TIMES, white)
    cells = drawn_cells(figure)
    pixels = drawn_cells(draw_process(["a"], [blurring()], images, TIMES, white))
    np.testing.assert_array_equal(cells[::2], pixels)
    low, high = figure.axes[1].get_ylim()  # the colour bar's
    colors = colormaps["magma"]((found - low) / (high - low), bytes=True)[..., :3]
    np.testing.assert_array_equal(cells[1::2], colors)


def test_snr_is_the_oracles():
    times = np.linspace(0.0, 1.0, 21)
    alpha, sigma = oracle.alpha_sigma(times, *SHAPE[:2], 4.0)
    expected = 2.0 * np.log(alpha / sigma)[..., 0]
    np.testing.assert_allclose(log_snr(blurring(), times), expected, rtol=1e-5, atol=1e-4)


def test_snr_is_finite_where_alpha_underflows():
    times = np.linspace(0.0, 1.0, 21)
    curves = log_snr(others()["ihdm"], times)
    assert np.isfinite(curves).all() and curves.min() < -1000.0
    np.testing.assert_allclose(curves[:, 0, 0], 2.0 * np.log(1.0 / 0.02), rtol=1e-6)


def test_without_noise_log_alpha_squared_is_drawn():
    rows, columns = (np.pi * np.arange(n) / n for n in SHAPE[:2])
    variance = ((0.35 + 0.01 * np.arange(50)) ** 2).sum()  # Gaussian blurs one after another
    expected = -(rows[:, None] ** 2 + columns**2) * variance
    curves = log_snr(others()["cold"], np.array([0.0, 1.0]))
    np.testing.assert_allclose(curves, np.stack([0.0 * expected, expected]), rtol=1e-5)
    (panel,) = draw_snr(["cold"], [others()["cold"]]).axes[:1]
    assert "no noise" in panel.get_title()


def test_without_blur_all_frequencies_share_a_curve():
    plain, blurred = draw_snr(["a", "b"], [blurring(0.0), blurring()]).axes[:2]
    curves = {panel: [line.get_ydata() for line in panel.lines] for panel in (plain, blurred)}
    assert len(curves[plain]) == len(curves[blurred]) >= 10
    times = np.linspace(0.0, 1.0, 401)
    logsnr = 2.0 * np.log(np.divide(*oracle.noise_scaling_cosine(times)))
    for curve in curves[plain]:
        np.testing.assert_allclose(curve, logsnr, atol=1e-4)
    highest, *_, lowest = curves[blurred]
    np.testing.assert_allclose(lowest, logsnr, atol=1e-4)
    expected = log_snr(blurring(), times)[:, -1, -1]
    np.testing.assert_array_equal(highest, expected)
    assert "alike" in plain.get_title() and "alike" not in blurred.get_title()


@pytest.mark.parametrize("count", [1, 6, 7])
def test_a_panel_for_each_process(count):
    figure = draw_snr([f"m{i}" for i in range(count)], [blurring()] * count)
    titles = [panel.get_title() for panel in figure.axes[:-1]]  # the last is the colour bar
    assert titles == [f"m{i}" for i in range(count)]


def test_labels_leave_out_the_folder_that_all_share(images, white):
    processes = [blurring()] * 2
    pairs = {
        ("digits-ihdm", "digits-blurring_diffusion"): ["ihdm", "blurring diffusion"],
        ("digits-ihdm", "cifar10-ihdm"): ["digits-ihdm", "cifar10-ihdm"],
        ("digits+base-ihdm", "digits"): ["digits\n+ base-ihdm", "digits"],
    }
    for names, expected in pairs.items():
        axes = draw_process(names, processes, images[:1], TIMES, white[:1]).axes[0]
        assert [label.get_text() for label in axes.get_yticklabels()] == expected
    assert [label.get_text() for label in axes.get_xticklabels()][1] == "t = 0.25"


def rows_of_digits(path, rows, columns):
    """The rows of a PNG `[rows, 112, W]`, from its lower right corner; labels are on the left."""
    picture = np.asarray(Image.open(path).convert("L"))
    bottom, right = (places.max() + 1 for places in np.nonzero(picture < 255))
    side, step = 8 * 14, 8 * 14 + 6
    tops = [bottom - side - step * row for row in range(rows)][::-1]
    left = right - step * columns + 6
    return np.stack([picture[top : top + side, left:right] for top in tops])


def test_a_row_for_each_gin_file_run_and_saved_model(tmp_path, digits_dir, finished_run):
    output = tmp_path / "new" / "figure.png"
    flags = [
        f"--gin_file={DIGITS}/ihdm.gin",
        "--gin_file=gin/digits.gin+gin/base/ihdm.gin",
        f"--workdir={finished_run}",
        f"--saved_model={finished_run}/saved_model",
        "--gin_param=LogBlur.sigma_blur_max = 3.0",
        f"--data_dir={digits_dir}",
        f"--output={output}",
        "--num_times=3",
    ]
    result = run(command("figures.py", *flags))
    assert result.returncode == 0, result.stderr[-2000:]
    assert f"wrote {output}" in result.stdout
    ihdm, joined, trained, exported = rows_of_digits(output, 4, 3)
    np.testing.assert_array_equal(ihdm, joined)
    np.testing.assert_array_equal(trained, exported)
    assert (trained != ihdm).any()
    real = TFDSImages("digits").load(digits_dir)[0].eval_images(1)[0, ..., 0]
    assert np.abs(ihdm[7::14, 7:112:14].astype(int) - real).max() < 16


@pytest.mark.parametrize("kind, ending", [("spaces", "svg"), ("snr", "pdf"), ("process", "pdf")])
def test_vector_formats(kind, ending, tmp_path, digits_dir, clean_gin):
    output = str(tmp_path / f"figure.{ending}")
    files = [[f"{DIGITS}/ihdm.gin"], [f"{DIGITS}/cold_diffusion.gin"]]
    draw_to_file(kind, output, gin_files=files, data_dir=digits_dir)
    with open(output, "rb") as file:
        assert {"svg": b"<svg", "pdf": b"%PDF"}[ending] in file.read(1000)
    assert os.listdir(tmp_path) == [f"figure.{ending}"]


def test_the_snr_of_a_run_needs_no_data(tmp_path, finished_run, clean_gin):
    nowhere = str(tmp_path / "nowhere")
    output = str(tmp_path / "snr.png")
    draw_to_file("snr", output, workdirs=[finished_run], data_dir=nowhere)
    assert os.path.exists(output) and not os.path.exists(nowhere)


@pytest.fixture
def large_digits(tmp_path):
    path = tmp_path / "large.gin"
    path.write_text("include 'digits.gin'\nTFDSImages.image_size = 16\n")
    return str(path)


def test_models_of_two_image_shapes_are_named(tmp_path, digits_dir, large_digits, clean_gin):
    arguments = {
        "gin_files": [[f"{DIGITS}/ihdm.gin"], [large_digits]],
        "data_dir": digits_dir,
    }
    output = str(tmp_path / "figure.png")
    with pytest.raises(UserError) as caught:
        draw_to_file("process", output, **arguments)
    for part in ("(16, 16, 1)", "(8, 8, 1)", "large", "digits-ihdm"):
        assert part in caught.value.message
    draw_to_file("snr", output, **arguments)


BAD_MODELS = {
    "no such file": ({"gin_files": [["nowhere.gin"]]}, "nowhere.gin"),
    "an overlay alone": ({"gin_files": [["base/ihdm.gin"]]}, "no Model.process"),
    "noise by the spectrum": (
        {"gin_files": [["digits/equal_snr.gin"]]},
        "digits-equal_snr has noise that follows the training images' spectrum",
    ),
    "no data": ({"gin_files": [["base/blurring_diffusion.gin"]]}, "train.data"),
    "no such run": ({"workdirs": ["/nowhere"]}, "--workdir=/nowhere"),
    "no such model": ({"saved_models": ["/nowhere"]}, "--saved_model=/nowhere"),
    "a wrong value": ({"gin_params": ["BlurSchedule.power = 3"]}, "power=3"),
    "a wrong name": ({"gin_params": ["BlurSchedule.pawer = 2"]}, "pawer"),
    "no such image": ({"image": 1437, "num_images": 2}, "1438 images"),
    "no folder": ({"output": "/proc/nothing/a.png"}, "/proc/nothing/a.png cannot be written"),
    "a folder": ({"output": ".png"}, "is a folder: give the name of a file"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_what_cannot_be_drawn_gets_a_clear_message(case, tmp_path, digits_dir, clean_gin):
    wrong, message = BAD_MODELS[case]
    (tmp_path / ".png").mkdir()
    given = {"data_dir": digits_dir, **wrong}
    if not {"gin_files", "workdirs", "saved_models"} & wrong.keys():
        given["gin_files"] = [["digits.gin"]]
    output = os.path.join(tmp_path, given.pop("output", "figure.png"))
    with pytest.raises(UserError) as caught:
        draw_to_file("process", output, **given)
    assert message in caught.value.message


MODEL = "--gin_file=gin/digits.gin"
BAD_FLAGS = {
    "no model": (["--output=a.png"], "--gin_file"),
    "no output": ([MODEL], "--output is missing"),
    "wrong ending": ([MODEL, "--output=a.gif"], "a.gif"),
    "one time": ([MODEL, "--output=a.png", "--num_times=1"], "--num_times=1"),
    "too many times": ([MODEL, "--output=A.PNG", "--num_times=101"], "--num_times=101 must be at"),
    "too many rows": ([MODEL, "--output=A.PNG", "--num_images=51"], "--num_images=51 must be at"),
    "negative image": ([MODEL, "--output=a.png", "--image=-1"], "--image=-1"),
    "no images": ([MODEL, "--output=a.png", "--num_images=0"], "--num_images=0"),
    "no flag": (["gin/digits.gin", "--output=a.png"], "gin/digits.gin"),
    "unknown figure": ([MODEL, "--output=a.png", "--figure=loss"], "process|spaces|snr"),
}


@pytest.mark.parametrize("case", BAD_FLAGS)
def test_wrong_flags_are_answered_before_tensorflow_is_loaded(case):
    flags, message = BAD_FLAGS[case]
    python, *arguments = command("figures.py", *flags)
    result = run_afresh([python, "-X", "importtime", *arguments])
    assert result.returncode == 1 and message in result.stderr
    assert "Traceback" not in result.stderr
    assert " bdm_tf.system.errors" in result.stderr and " tensorflow" not in result.stderr
