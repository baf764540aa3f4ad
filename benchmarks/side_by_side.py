"""Pictures beside each other, each under its title; "/" begins another row.

python benchmarks/side_by_side.py --output=both.png --picture="no blur=a.png" --picture="blur=b.png"
"""

import matplotlib
from absl import app, flags

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bdm_tf.system.paths import define_path

_PICTURES = flags.DEFINE_multi_string("picture", None, "TITLE=FILE, or /.", required=True)
_OUTPUT = define_path("output", None, "Where the figure goes.")
flags.mark_flag_as_required(_OUTPUT)


def main(_) -> None:
    rows: list[list[str]] = [[]]
    for given in _PICTURES.value:
        if given == "/":
            rows.append([])
        else:
            rows[-1].append(given)
    columns = max(map(len, rows))
    figure = Figure(figsize=(2.6 * columns, 2.9 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for row, pictures in zip(panels, rows):
        for panel, given in zip(row, pictures):
            title, _, path = given.rpartition("=")
            panel.imshow(plt.imread(path), cmap="gray", interpolation="nearest")
            panel.set_title(title, fontsize=9)
    figure.savefig(_OUTPUT.value, dpi=130)


if __name__ == "__main__":
    app.run(main)
