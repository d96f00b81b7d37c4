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
from bonsaigan.training import trainer as training
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


def test_a_picture_lies_where_the_latent_that_draws_it_does() -> None:
    components = PrincipalComponents(pictures_of(400), latent=32)
    z = torch.randn(2000, 32, generator=torch.Generator().manual_seed(1))
    drawn = torch.nn.functional.interpolate(components.draw(z), (32, 32), mode="nearest")
    told, found = (components.places_of(z, count=4), components.places(drawn, count=4))
    assert told.shape == found.shape == (2000, 4)
    for number in range(4):
        assert np.corrcoef(told[:, number], found[:, number])[0, 1] > 0.9


@pytest.mark.parametrize("count", [1, 3, 200])
def test_the_places_of_photographs_are_spread_as_latents_are(count: int) -> None:
    pictures = pictures_of(count, channels=4)
    components = PrincipalComponents(pictures, latent=64)
    places = components.places(to_float(pictures), count=8)
    assert places.shape == (count, 8)
    assert places.isfinite().all()
    z = torch.randn(4, 64)
    drawn = components.draw(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as a step in half precision has it
        assert torch.equal(components.places(to_float(pictures), count=8), places)
        assert torch.equal(components.draw(z), drawn)
    for part in (1, 8):  # a batch of another size rounds otherwise
        parts = [components.places(to_float(pictures[i : i + part]), count=8) for i in range(0, count, part)]
        assert torch.allclose(torch.cat(parts), places, atol=1e-6)
    if count == 200:  # of which there are five components: one brightness, four colours
        assert places[:, :5].mean(0).abs().max() < 0.01
        assert places[:, :5].std(0).numpy() == pytest.approx(np.ones(5), abs=0.02)


def test_places_beyond_the_components_are_zero_for_both() -> None:
    pictures = pictures_of(3)  # which lie in a plane
    components = PrincipalComponents(pictures, latent=64)
    for places in (
        components.places(to_float(pictures), count=8),
        components.places_of(torch.randn(5, 64), count=8),
    ):
        assert places[:, :2].any(dim=0).all()
        assert not places[:, 2:].any()


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


@pytest.mark.parametrize("passes", [1, 2])
def test_the_discriminator_is_told_of_latents_and_of_photographs(
    passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "TOLD_NOISE", 0.0)
    pictures = pictures_of(16)
    config = default_config(find("projected"), Size(width_px=32, height_px=32))
    trainer = Trainer(dataclasses.replace(config, accumulate=passes), device=torch.device("cpu"))
    trainer.begin(pictures, anew=False)
    assert trainer.components is not None
    drawn: list[torch.Tensor] = []
    judged: list[torch.Tensor] = []
    trainer.generator.register_forward_hook(lambda _module, given, _pictures: drawn.append(given[0]))
    trainer.discriminator.register_forward_hook(lambda _module, given, _logits: judged.append(given[0][-1]))
    trainer.step(pictures)
    turns = 1 + config.generator_turns
    assert len(judged) == passes * turns  # in the discriminator's turn both sides at once
    own = config.batch // passes
    known = {tuple(place.tolist()) for place in trainer.components.places(to_float(pictures), count=16)}
    seen_by_discriminator, seen_by_generator = judged[:passes], judged[passes:]
    latents = drawn[:passes]
    for told, z in zip(seen_by_discriminator, latents):
        assert {tuple(place.tolist()) for place in told[:own]} <= known
        assert torch.equal(told[own:], trainer.components.places_of(z, count=16))
    for told, z in zip(seen_by_generator, drawn[-len(seen_by_generator) :]):
        assert torch.equal(told, trainer.components.places_of(z, count=16))
    right = trainer.told_apart(to_float(pictures[:4]), torch.zeros(4, 3, 32, 32), z=latents[0][:4])
    assert all(share in (0, 0.25, 0.5, 0.75, 1) for share in right)
    assert torch.equal(judged[-2], trainer.components.places(to_float(pictures[:4]), count=16))
    assert torch.equal(judged[-1], trainer.components.places_of(latents[0][:4], count=16))


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
