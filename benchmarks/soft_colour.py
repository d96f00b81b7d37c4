"""What soft colours do to the score: the same generators drawn sharply and softly, and photographs softened.

    python benchmarks/soft_colour.py --archive caltech-101.zip \
        caltech101:bonsai=KEPT/bonsai-projected-0/generator caltech101:watch=RUN/best

Each DATA=GENERATOR is a generator of the recipe `projected` (as `time_to_quality.py --keep` or a run leaves
it) and the pictures it was trained on. Photographs are scored as the training pictures that they are, whose
score a blur can only worsen; a blur that brought drawn pictures nearer because it hides what the score sees
would bring them nearer too. Adds to results/soft_colour.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import _result
import numpy as np
import torch
from time_to_quality import SAMPLES, Judge
from torch.nn import functional

from bonsaigan.data.prepare import to_uint8
from bonsaigan.generator import Generator, read_generator, rebuild
from bonsaigan.models.fastgan import LUMA, SOFT

DRAWN_LATER = 1_000_000
"""Seeds from here: others than those that a run scores itself by."""


def main() -> None:
    """Score each generator twice, and each set of photographs once as it is and once softened."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", metavar="DATA=GENERATOR")
    parser.add_argument("--archive", help="a copy of the Caltech-101 archive")
    asked = parser.parse_args()
    path = _result.RESULTS / "soft_colour.json"
    known = json.loads(path.read_text()) if path.exists() else {"photographs": {}, "generators": []}
    judges: dict[str, Judge] = {}
    for pair in asked.pairs:
        data, _, folder = pair.partition("=")
        if data not in judges:
            judges[data] = Judge(data, asked.archive, size="64", holdout=0.0)
            real = judges[data].real
            known["photographs"][data] = scored(judges[data], real, softened(real))
        generator = read_generator(Path(folder))
        name = Path(folder).parent.name
        about = {"data": data, "name": name, "step": generator.spec.step}
        row = about | scored(judges[data], draw(generator, soft=False), draw(generator, soft=True))
        print(row, flush=True)
        others = [r for r in known["generators"] if (r["data"], r["name"]) != (data, name)]
        known["generators"] = [*others, row]
    _result.write(path.stem, {"photographs": known["photographs"], "generators": known["generators"]})


def scored(judge: Judge, sharp: np.ndarray, soft: np.ndarray) -> dict[str, Any]:
    """Measures of pictures, uint8 (N, H, W, 3), drawn both ways."""
    return {"sharp": judge.score(sharp), "soft": judge.score(soft)}


def draw(generator: Generator, *, soft: bool) -> np.ndarray:
    """The same seeds by the same weights, with soft colours or without; uint8 (500, H, W, 3)."""
    network = dataclasses.replace(generator.spec.network, soft_colour=soft)
    spec = dataclasses.replace(generator.spec, network=network)
    again = rebuild(spec)
    again.load_state_dict(generator.network.state_dict())
    drawing = Generator(again, spec)
    return drawing.images(drawing.latents(range(DRAWN_LATER, DRAWN_LATER + SAMPLES)))


def softened(pictures: np.ndarray) -> np.ndarray:
    """Photographs, uint8 (N, H, W, 3), with their chroma blurred as `SoftColour` does."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    luma = (x * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    tap = torch.tensor(SOFT)
    kernel = torch.outer(tap, tap).expand(x.shape[1], 1, -1, -1)
    chroma = functional.pad(x - luma, (1, 1, 1, 1), mode="replicate")
    return to_uint8(luma + functional.conv2d(chroma, kernel, groups=x.shape[1]))


if __name__ == "__main__":
    main()
