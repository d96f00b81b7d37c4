"""Seconds a step of the article's procedure takes: our recipe in float32 and the Keras program, in turn.

python benchmarks/article_step.py --archive caltech-101.zip --keras-python KERAS_ENVIRONMENT/bin/python
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import _result
import numpy as np
import torch
from roofline import product_gflop_per_sec

from bonsaigan.training import session
from bonsaigan.training.loop import measure_step_sec

STEP_GFLOP = 550


def main() -> None:
    """Measure each twice, in turn, and the machine's matrix product beside them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive")
    parser.add_argument("--keras-python", required=True, help="a Python that has TensorFlow and Keras")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    wishes = session.Wishes(archive=asked.archive, recipe="article", steps=1, precision="fp32")
    plan = session.plan("caltech101:bonsai", wishes)
    pictures = np.asarray(plan.training_pictures)
    ours, keras = [], []
    for _ in range(asked.rounds):
        ours.append(measure_step_sec(plan.config, pictures, device=torch.device("cpu"), steps=asked.steps))
        keras.append(keras_step_sec(asked.keras_python, pictures, steps=asked.steps))
    rate = product_gflop_per_sec(torch.float32)
    _result.write(
        "article_step",
        {
            "ours_sec": ours,
            "keras_sec": keras,
            "share_of_keras": statistics.median(ours) / statistics.median(keras),
            "matrix_gflop_per_sec": rate,
            "ours_share_of_matrix_rate": STEP_GFLOP / statistics.median(ours) / rate,
            "torch": torch.__version__,
        },
    )


def keras_step_sec(python: str, pictures: np.ndarray, *, steps: int) -> float:
    """Median seconds of a step of `article_keras.py`, without the first two, which compile."""
    script = Path(__file__).with_name("article_keras.py")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npy"
        np.save(data, pictures)
        command = [python, str(script), "--data", str(data), "--steps", str(steps + 2), "--out", folder]
        subprocess.run([*command, "--samples", "6"], check=True, capture_output=True)
        return statistics.median(json.loads((Path(folder) / "steps.json").read_text())["step_sec"][2:])


if __name__ == "__main__":
    main()
