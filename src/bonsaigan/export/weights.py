"""A folder that bonsaigan takes back: folded weights, the JSON that rebuilds the network, a model card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bonsaigan.export.targets import Draw, Job
from bonsaigan.generator import read_generator, save_generator

CARD_FILE = "README.md"


def write(job: Job, path: Path) -> None:
    """Write the folder."""
    save_generator(path, job.network.half() if job.half else job.network, job.spec)
    (path / CARD_FILE).write_text(job.card, encoding="utf-8")


def load(path: Path) -> Draw:
    """Load it as `bonsaigan.load` does."""
    network = read_generator(path).network

    @torch.inference_mode()
    def draw(z: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(z)).permute(0, 2, 3, 1).numpy()

    return draw
