"""An evaluation that is done once, its results in one file."""

from __future__ import annotations

import os

from bdm_tf.evaluation.job import Evaluation
from bdm_tf.evaluation.results import finished, table, write_results
from bdm_tf.system.files import check_writable


def evaluate_once(evaluation: Evaluation, output: str, *, overwrite: bool) -> None:
    """Scores and writes `output`; what was measured already by the same protocol is shown.

    Raises:
        UserError: `output` holds results of another protocol and must not be overwritten.
    """
    cluster, protocol = evaluation.cluster, evaluation.protocol()

    def look() -> dict | None:
        check_writable(output)
        return finished(output, protocol, overwrite)

    results = cluster.of_chief(look)
    if results is not None and not evaluation.wants_files():
        done = f"measured already, see {output}"
    else:
        results = evaluation.score(os.path.dirname(output))
        cluster.of_chief(write_results, output, results)
        evaluation.clear()
        done = f"wrote {output}"
    if cluster.is_chief:
        print(f"{done}\n{table(results)}")
    cluster.leave()
