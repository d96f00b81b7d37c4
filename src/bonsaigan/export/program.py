"""A `torch.export` program: PyTorch alone loads it, without this package, with `torch.export.load`.

It takes latent vectors, float32 (B, latent), and gives pictures, float32 (B, C, H, W) in [-1, 1].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bonsaigan.export.targets import Draw, Job


def write(job: Job, path: Path) -> None:
    """Write the program; any batch size from 1 on."""
    z = torch.zeros(2, job.spec.network.latent)
    with torch.no_grad():
        program = torch.export.export(job.network, (z,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # where this package lies on this machine
    torch.export.save(program, path)


def load(path: Path) -> Draw:
    """Load it as its users do."""
    program = torch.export.load(path).module()

    @torch.inference_mode()
    def draw(z: np.ndarray) -> np.ndarray:
        return program(torch.from_numpy(z)).permute(0, 2, 3, 1).numpy()

    return draw
