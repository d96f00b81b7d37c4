"""One of our recipes by the rivals' protocol, so that `time_to_quality.py` treats all alike.

python benchmarks/ours.py --recipe projected --data pictures.npy --at 60 300 600 --out DIR

Takes the recipe's defaults for the pictures' size and number, as `bonsaigan train` does, and draws from the
calibrated average of the generator, as `bonsaigan generate` does. Settings that move over a run move over the
seconds of the last moment. `--init RUN` starts from another run's networks, as `bonsaigan train --init` does.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import bonsaigan  # noqa: F401  # before torch: it settles how threads wait

# isort: split
import numpy as np
import torch
from rivals import _protocol

from bonsaigan import runs
from bonsaigan.config import Budget, ComponentsConfig, Size, TrainConfig
from bonsaigan.data.prepare import to_uint8
from bonsaigan.device import choose_precision
from bonsaigan.generator import save_generator
from bonsaigan.training import recipes
from bonsaigan.training.ema import GeneratorEma, fixed_latents
from bonsaigan.training.session import spec_of
from bonsaigan.training.trainer import StepStats, Trainer

DRAW_BATCH, DRAW_SEED = 25, 1


class Ours:
    """A `Trainer` as a rival's `Method`."""

    def __init__(self, config: TrainConfig, pictures: np.ndarray, asked: _protocol.Asked):
        self.out = asked.out
        self.trainer = Trainer(config, device=torch.device("cpu"))
        self.pictures, self.latent, self.samples = pictures, config.network.latent, asked.samples
        self.stats: StepStats | None = None

    def step(self) -> None:
        """One step of both players, and what comes before the first."""
        began = time.perf_counter()
        if self.trainer.progress.step == 0:
            init = self.trainer.config.init
            if init is not None:
                self.trainer.begin_from(Path(init))
            self.trainer.begin(self.pictures, anew=init is None)
        self.trainer.anneal()
        self.stats = self.trainer.step(self.pictures)
        self.trainer.progress.train_sec += time.perf_counter() - began

    def draw(self) -> dict[str, np.ndarray]:
        """uint8 (samples, H, W, 3) of fixed latents, by the average and by the generator as it is.

        The average is also left in the folder `generator`, for `bonsaigan.load` and `bonsaigan export`.
        """
        average = self.trainer.ema.calibrated(latent=self.latent)
        save_generator(
            self.out / "generator", average, spec_of(self.trainer.config, step=self.trainer.progress.step)
        )
        as_it_is = GeneratorEma(self.trainer.generator, half_life_kimg=0.0).calibrated(latent=self.latent)
        return {"average": self._draw(average), "generator": self._draw(as_it_is)}

    def _draw(self, network: torch.nn.Module) -> np.ndarray:
        z = fixed_latents(self.samples, latent=self.latent, seed=DRAW_SEED)
        with torch.inference_mode():
            return np.concatenate([to_uint8(network(part)) for part in z.split(DRAW_BATCH)])

    def progress(self) -> dict[str, float]:
        """The last step's losses and accuracies."""
        return {} if self.stats is None else dataclasses.asdict(self.stats)


def main() -> None:
    """Train, and leave what every rival leaves."""
    parser = _protocol.parser(__doc__)
    parser.add_argument("--recipe", choices=recipes.RECIPES, default="projected")
    parser.add_argument("--init", metavar="RUN", help="a run folder to start from the networks of")
    values = parser.parse_args()
    asked, pictures = _protocol.asked(values), _protocol.load_pictures(values.data)
    recipe = recipes.find(values.recipe)
    size = Size(width_px=pictures.shape[2], height_px=pictures.shape[1])
    config = dataclasses.replace(
        recipes.default_config(recipe, size),
        budget=Budget(minutes=asked.at[-1] / 60) if asked.at else Budget(steps=asked.steps),
        precision=choose_precision("auto", torch.device("cpu"), half=recipe.half_precision),
        seed=asked.seed,
    )
    if values.init:
        network = runs.read_config(Path(values.init)).network
        config = dataclasses.replace(config, init=values.init, network=network, components=ComponentsConfig())
    method = Ours(config, pictures, asked)
    networks = {"generator": method.trainer.generator.parameters(), "discriminator": method.trainer.judged}
    about = _protocol.About(
        method=recipe.name,
        import_sec=0.0,
        parameters={name: sum(p.numel() for p in part) for name, part in networks.items()},
        versions={"torch": torch.__version__},
        settings=dataclasses.asdict(config),
    )
    _protocol.run(method, asked, about)


if __name__ == "__main__":
    main()
