"""The start of a generator: the principal components of the pictures, and how it learns to draw them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from bonsaigan.config import ComponentsConfig, Size
from bonsaigan.data.prepare import to_float
from bonsaigan.models import build_generator
from bonsaigan.training.components import PrincipalComponents, imitate
from bonsaigan.training.recipes import default_config, find
from bonsaigan.training.trainer import Trainer


def pictures_of(count: int, *, side: tuple[int, int] = (32, 32), channels: int = 3) -> np.ndarray:
    """Pictures that differ in how bright the left half is and what colour the right half has."""
    rng = np.random.default_rng(0)
    height, width = side
    pictures = np.full((count, height, width, channels), 128, np.uint8)
    pictures[:, :, : width // 2] = rng.integers(40, 216, (count, 1, 1, 1))
    pictures[:, :, width // 2 :] = rng.integers(90, 166, (count, 1, 1, channels))
    return pictures


def test_what_the_components_draw_has_the_mean_and_the_spread_of_the_pictures() -> None:
    pictures = pictures_of(400)
    components = PrincipalComponents(pictures, latent=32)
    drawn = components.draw(torch.randn(4000, 32, generator=torch.Generator().manual_seed(1)))
    real = torch.nn.functional.adaptive_avg_pool2d(to_float(pictures), (16, 16))
    assert drawn.shape == (4000, 3, 16, 16)
    # Away from the seam, where both ways of making pictures small agree.
    for columns in (slice(0, 6), slice(10, 16)):
        a, b = drawn[..., columns], real[..., columns]
        assert torch.allclose(a.mean(0), b.mean(0), atol=0.03)
        assert torch.allclose(a.std(0), b.std(0), rtol=0.08)


@pytest.mark.parametrize(
    ("count", "side", "channels", "latent"),
    [(8, (32, 32), 3, 128), (40, (48, 32), 1, 4), (3000, (32, 64), 4, 16)],
    ids=["few pictures", "grey, upright", "many, transparent, wide"],
)
def test_any_set_has_components(count: int, side: tuple[int, int], channels: int, latent: int) -> None:
    components = PrincipalComponents(pictures_of(count, side=side, channels=channels), latent=latent)
    drawn = components.draw(torch.randn(5, latent))
    assert drawn.shape == (5, channels, 16 * side[0] // min(side), 16 * side[1] // min(side))
    assert drawn.isfinite().all()
    assert drawn.abs().max() <= 1


def test_a_generator_learns_to_draw_them() -> None:
    config = default_config(find("projected"), Size(width_px=32, height_px=32))
    torch.manual_seed(0)
    generator = build_generator(
        "fastgan",
        network=dataclasses.replace(config.network, latent=16, width=64),
        size=config.data.size,
        channels=3,
    )
    components = PrincipalComponents(pictures_of(64), latent=16)
    z = torch.randn(64, 16)
    with torch.no_grad():
        before = components.distance(z, generator(z)).item()
        shuffled = components.distance(z.roll(1, 0), generator(z)).item()
    imitate(components, generator, steps=60, batch_here=16)
    with torch.no_grad():
        after = components.distance(z, generator(z)).item()
        others = components.distance(z.roll(1, 0), generator(z)).item()
    assert shuffled == pytest.approx(before, rel=0.2)  # it told latents apart by nothing
    assert after < before / 3
    assert others > 2 * after  # each latent has its own picture, not all of them the mean


def test_a_step_in_passes_learns_the_same() -> None:
    config = default_config(find("r3gan"), Size(width_px=32, height_px=32))
    network = dataclasses.replace(config.network, latent=16, width=32)
    components, learnt = PrincipalComponents(pictures_of(64), latent=16), []
    for passes in (1, 2):
        torch.manual_seed(0)
        generator = build_generator("r3gan", network=network, size=config.data.size, channels=3)
        imitate(components, generator, steps=3, batch_here=8 // passes, passes=passes)
        learnt.append(torch.nn.utils.parameters_to_vector(generator.parameters()))
    assert torch.linalg.norm(learnt[0] - learnt[1]) < 1e-3 * torch.linalg.norm(learnt[0])


def test_a_run_starts_from_them_and_is_pulled_towards_them_for_a_while() -> None:
    size, pictures = Size(width_px=32, height_px=32), pictures_of(16)
    config = default_config(find("projected"), size)
    config = dataclasses.replace(
        config, components=ComponentsConfig(first_steps=1, weight=30.0, until_step=2)
    )
    trainer = Trainer(config, device=torch.device("cpu"))
    as_built = [p.detach().clone() for p in trainer.generator.parameters()]
    trainer.begin(pictures, anew=True)
    begun = list(trainer.generator.parameters())
    assert not all(map(torch.equal, as_built, begun))
    assert all(map(torch.equal, begun, trainer.ema.module.parameters()))
    z = torch.randn(8, config.network.latent)
    pulls = []
    for _ in range(3):
        pulls.append(trainer._pull(z, torch.zeros(8, 3, 32, 32)).item())
        trainer.step(pictures)
    assert pulls[0] > 0
    assert pulls[1] == pytest.approx(pulls[0] / 2)
    assert pulls[2] == 0


def test_a_run_that_stopped_before_its_first_step_does_not_learn_them_twice(tmp_path: Path) -> None:
    pictures = pictures_of(16)
    config = default_config(find("projected"), Size(width_px=32, height_px=32))
    stopped, resumed = (Trainer(config, device=torch.device("cpu")) for _ in range(2))
    stopped.begin(pictures, anew=True)
    stopped.save(tmp_path)
    resumed.restore(tmp_path)
    resumed.begin(pictures, anew=False)
    assert all(map(torch.equal, stopped.generator.parameters(), resumed.generator.parameters()))
    stopped.step(pictures)
    resumed.step(pictures)
    assert all(map(torch.equal, stopped.generator.parameters(), resumed.generator.parameters()))


def test_the_article_starts_as_it_did() -> None:
    trainer = Trainer(
        default_config(find("article"), Size(width_px=64, height_px=64)), device=torch.device("cpu")
    )
    before = [p.detach().clone() for p in trainer.generator.parameters()]
    trainer.begin(pictures_of(16, side=(64, 64)), anew=True)
    assert trainer.components is None
    assert all(map(torch.equal, before, trainer.generator.parameters()))
