"""A rival: the package `lightweight-gan` from PyPI, made to train on a CPU from outside.

    python benchmarks/rivals/lightweight_gan.py --data pictures.npy --out DIR --at 60 300 600

The package asks for CUDA when it is imported and moves everything there. Nothing of it is changed or copied
here: it is told once that there is CUDA, `.cuda()` then moves nothing, and its devices are the CPU. Networks,
losses, optimisers and step are its own, with its command line's settings. README.md beside this file tells
the rest.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import _protocol
import numpy as np

IMPORTS_BEGAN_SEC = time.perf_counter()

try:
    import torch
except ImportError as error:
    raise SystemExit(_protocol.missing(error)) from error

BATCH, ACCUMULATE, FMAP_MAX = 10, 4, 512
AUG_PROB = 0.3
ATTENTION_PX = 32
AVERAGES_FROM_STEP = 20_000
TRIES = 3


def main() -> None:
    """Read the command line and train."""
    package = import_package()
    import_sec = time.perf_counter() - IMPORTS_BEGAN_SEC
    parser = _protocol.parser(__doc__)
    parser.add_argument("--batch", type=int, default=BATCH, help="pictures in a pass (the package: 10)")
    parser.add_argument(
        "--accumulate", type=int, default=ACCUMULATE, help="passes in a step (the package: 4)"
    )
    parser.add_argument("--fmap-max", type=int, default=FMAP_MAX, help="widest layer (the package: 512)")
    parser.add_argument(
        "--attention",
        type=int,
        nargs="*",
        default=[ATTENTION_PX],
        metavar="SIDE",
        help="sides with attention, or none (the package: 32)",
    )
    parser.add_argument("--aug-prob", type=float, default=AUG_PROB, help="share of passes augmented")
    values = parser.parse_args()
    asked = _protocol.asked(values)
    pictures = _protocol.load_pictures(asked.data)
    side_px = pictures.shape[1]
    if pictures.shape[2] != side_px or side_px & (side_px - 1):
        raise SystemExit(f"--data {asked.data}: the package needs squares with a power of two as side")
    torch.manual_seed(asked.seed)
    random.seed(asked.seed)
    settings = {
        "image_size": side_px,
        "batch_size": values.batch,
        "gradient_accumulate_every": values.accumulate,
        "fmap_max": values.fmap_max,
        "aug_prob": values.aug_prob,
        "aug_types": ["cutout", "translation"],
        "attn_res_layers": values.attention,
        "disc_output_size": 1,
        "lr": 2e-4,
    }
    with tempfile.TemporaryDirectory() as folder, on_cpu(package):
        trainer = package.Trainer(base_dir=folder, use_aim=False, **settings)
        trainer.init_GAN()
        method = Lightweight(package, trainer, pictures, asked)
        about = _protocol.About(
            method="lightweight_gan",
            import_sec=import_sec,
            parameters={"generator": count(trainer.GAN.G), "discriminator": count(trainer.GAN.D)},
            versions={"torch": torch.__version__, "lightweight-gan": package.__version__},
            settings={**settings, "pictures": list(pictures.shape)},
        )
        _protocol.run(method, asked, about)


class Lightweight:
    """The package's trainer as the protocol uses it."""

    def __init__(
        self, package: types.ModuleType, trainer: Any, pictures: np.ndarray, asked: _protocol.Asked
    ) -> None:
        self.trainer, self.failure = trainer, package.NanException
        # It would draw 192 pictures at every hundredth step; here `draw` does, uncounted.
        trainer.evaluate = lambda *_, **__: None
        trainer.loader = passes(pictures, trainer.batch_size, np.random.default_rng(asked.seed))
        maker = torch.Generator().manual_seed(asked.seed)
        self.latents = torch.randn(asked.samples, trainer.latent_dim, generator=maker)
        self.seed = asked.seed

    def step(self) -> None:
        """One step of the package, tried again after a NaN as its command line does."""
        for attempt in range(TRIES):
            try:
                return self.trainer.train()
            except self.failure:
                if attempt == TRIES - 1:
                    raise SystemExit(f"lightweight-gan met NaN at step {self.trainer.steps}") from None
        return None

    def draw(self) -> dict[str, np.ndarray]:
        """Pictures of the generator, and first of its average once that follows.

        Until step 20,000 the package's average is an old copy, renewed at every thousandth step.
        """
        gan = self.trainer.GAN
        gan.eval()
        average = {"average": gan.GE} if self.trainer.steps > AVERAGES_FROM_STEP else {}
        return {by: self.drawn_by(network) for by, network in {**average, "generator": gan.G}.items()}

    def drawn_by(self, network: torch.nn.Module) -> np.ndarray:
        """Of the same latents, and of the same noise inside the generator, each time."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            pictures = self.trainer.generate_(network, self.latents)
        return _protocol.to_uint8(pictures.permute(0, 2, 3, 1).numpy())

    def progress(self) -> dict[str, float]:
        trainer = self.trainer
        values = {"loss_generator": trainer.g_loss, "loss_discriminator": trainer.d_loss}
        if trainer.last_gp_loss is not None:
            values["gradient_penalty"] = trainer.last_gp_loss
        return values


def passes(pictures: np.ndarray, batch: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Endless float32 (batch, 3, H, W) in [0, 1], as the package's own loader makes of picture files."""
    for chosen in _protocol.batches(len(pictures), batch, rng):
        yield torch.from_numpy(pictures[chosen]).permute(0, 3, 1, 2).contiguous().float() / 255.0


def count(network: torch.nn.Module) -> int:
    """Number of parameters that training changes."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


# ---- the shim ----------------------------------------------------------------------------------------------


def import_package() -> types.ModuleType:
    """The package's module with the trainer, imported without CUDA and without torchvision.

    Raises:
        SystemExit: it, or something else it needs, is not installed.
    """
    here = Path(__file__).parent.resolve()
    # This file bears the package's name and would be found first.
    elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    try:
        with mock.patch.object(sys, "path", elsewhere):
            # Imported before anybody says that there is CUDA.
            for name in ("kornia.filters", "adabelief_pytorch", "einops", "tqdm"):
                importlib.import_module(name)
            with (
                mock.patch.dict(sys.modules, hollow_torchvision()),
                mock.patch.object(torch.cuda, "is_available", return_value=True),
            ):
                return importlib.import_module("lightweight_gan.lightweight_gan")
    except ImportError as error:
        raise SystemExit(_protocol.missing(error)) from error


def hollow_torchvision() -> dict[str, types.ModuleType]:
    """Empty modules in the place of torchvision: only reading and writing picture files would call it."""
    torchvision = types.ModuleType("torchvision")
    transforms = types.ModuleType("torchvision.transforms")
    torchvision.__dict__["transforms"] = transforms
    return {"torchvision": torchvision, "torchvision.transforms": transforms}


@contextlib.contextmanager
def on_cpu(package: types.ModuleType) -> Iterator[None]:
    """While this lasts, what the package sends to CUDA stays on the CPU."""
    with (
        mock.patch.object(torch.Tensor, "cuda", lambda self, *_, **__: self),
        mock.patch.object(torch.nn.Module, "cuda", lambda self, *_, **__: self),
        mock.patch.object(package, "torch", TorchOnCpu("torch")),
    ):
        yield


class TorchOnCpu(types.ModuleType):
    """`torch` whose every device is the CPU."""

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: torch.device("cpu")) if name == "device" else getattr(torch, name)


if __name__ == "__main__":
    main()
