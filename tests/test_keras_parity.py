"""The recipe `article` is the tutorial's system: Keras itself, on the same numbers, says so."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bonsaigan.config import Size
from bonsaigan.models.article import ArticleDiscriminator, ArticleGenerator
from bonsaigan.training.optim import KerasAdam

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras", reason="the extra `keras` is not installed")
if keras.backend.backend() != "torch":
    pytest.skip("Keras was imported before with another backend", allow_module_level=True)

# Keras 3.15 calls numpy in a way that numpy 2 will stop to accept.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BASELINE = Path(__file__).parents[1] / "benchmarks" / "article_keras.py"


@pytest.fixture(scope="module")
def baseline() -> Any:
    """The benchmark's Keras program, as a module."""
    spec = importlib.util.spec_from_file_location("article_keras", BASELINE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def to_numpy(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def weights_of(network: nn.Module) -> list[np.ndarray]:
    """Our weights in Keras' axes: dense (in, out); convolution (h, w, in, out) or (h, w, out, in)."""
    found = []
    for parameter in network.parameters():
        value = parameter.detach()
        found.append(
            (value.permute(2, 3, 1, 0) if value.ndim == 4 else value.T if value.ndim == 2 else value).numpy()
        )
    return found


def pictures(count: int, size: Size, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size.height_px, size.width_px, generator=generator) * 2 - 1


def shake_biases(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize("size", ["64", "48x32"])
def test_same_weights_same_outputs(baseline: Any, size: str) -> None:
    torch.manual_seed(0)
    parsed = Size.parse(size)
    rows, columns = parsed.height_px, parsed.width_px
    ours_g, ours_d = ArticleGenerator(size=parsed), ArticleDiscriminator(size=parsed).eval()
    shake_biases(ours_g)
    shake_biases(ours_d)
    keras_g = baseline.build_generator(rows=rows // 8, columns=columns // 8)
    keras_d = baseline.build_discriminator(rows=rows, columns=columns)
    if size == "64":
        assert (keras_g.count_params(), keras_d.count_params()) == (3_750_275, 660_929)
    keras_g.set_weights(weights_of(ours_g))
    keras_d.set_weights(weights_of(ours_d))
    z, images = torch.randn(2, 100), pictures(2, parsed)
    with torch.no_grad():
        drawn = ours_g(z).permute(0, 2, 3, 1).numpy()
        judged = torch.sigmoid(ours_d(images)).numpy()
    np.testing.assert_allclose(drawn, to_numpy(keras_g(z.numpy())), atol=1e-5)
    theirs = to_numpy(keras_d(images.permute(0, 2, 3, 1).numpy(), training=False))
    np.testing.assert_allclose(judged, theirs[:, 0], atol=1e-5)


def test_initial_values_follow_keras_distribution(baseline: Any) -> None:
    torch.manual_seed(0)
    ours = weights_of(ArticleGenerator(size=Size.parse("64")))
    for mine, theirs in zip(ours, baseline.build_generator().get_weights()):
        assert mine.shape == theirs.shape
        if theirs.size > 1000:
            assert abs(mine).max() == pytest.approx(abs(theirs).max(), rel=0.01)
            assert mine.std() == pytest.approx(theirs.std(), rel=0.02)
        elif theirs.ndim == 1:
            assert not mine.any()
            assert not theirs.any()


def test_adam_steps_as_keras_does() -> None:
    start = np.linspace(-1, 1, 7, dtype=np.float32)
    ours = nn.Parameter(torch.from_numpy(start.copy()))
    theirs = keras.Variable(start.copy())
    mine = KerasAdam([ours], lr=2e-4, betas=(0.5, 0.999))
    other = keras.optimizers.Adam(learning_rate=2e-4, beta_1=0.5)
    rng = np.random.default_rng(0)
    for _ in range(20):
        # Gradients down to 1e-8, where the place of epsilon decides.
        gradient = (rng.standard_normal(7) * np.logspace(-8, 0, 7)).astype(np.float32)
        ours.grad = torch.from_numpy(gradient)
        mine.step()
        other.apply([keras.ops.convert_to_tensor(gradient)], [theirs])
    moved = to_numpy(theirs) - start
    assert abs(moved).min() > 1e-7
    np.testing.assert_allclose(ours.detach().numpy() - start, moved, rtol=1e-3, atol=2e-7)


def test_cross_entropy_on_logits_equals_keras_on_probabilities() -> None:
    """Keras on PyTorch clips probabilities to 1e-7; on TensorFlow, as the article ran, it uses the logits."""
    logits = torch.linspace(-9, 9, 37)
    for label in (0.0, 1.0):
        labels = torch.full_like(logits, label)
        ours = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        theirs = keras.losses.binary_crossentropy(labels[:, None], torch.sigmoid(logits)[:, None])
        # A probability near one has a spacing of 6e-8; its logarithm inherits that, not ours.
        np.testing.assert_allclose(ours.numpy(), to_numpy(theirs), rtol=1e-3, atol=1e-6)


def article_trainer(*, size: Size, width: int) -> Any:
    """Our trainer of the recipe `article`, without dropout."""
    from bonsaigan.config import Budget, DataConfig, NetworkConfig, TrainConfig
    from bonsaigan.training.recipes import find
    from bonsaigan.training.trainer import Trainer

    defaults = find("article").defaults(size)
    config = TrainConfig(
        recipe="article",
        data=DataConfig(source="demo:bonsai", size=size, fit="squash"),
        channels=3,
        budget=Budget(steps=3),
        batch=defaults.batch,
        network=NetworkConfig(latent=100, width=width, discriminator_width=width // 2),
        optimizer=defaults.optimizer,
    )
    trainer = Trainer(config, device=torch.device("cpu"))
    trainer.discriminator.get_submodule("dropout").p = 0.0  # pyright: ignore
    return trainer


def step_both(baseline: Any, *, size: Size, width: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the same steps, on the same draws, with our trainer and with Keras; compare losses and weights."""
    trainer = article_trainer(size=size, width=width)
    rows, columns = size.height_px, size.width_px
    keras_g = baseline.build_generator(width=width, rows=rows // 8, columns=columns // 8)
    keras_d = baseline.build_discriminator(width=width // 2, rows=rows, columns=columns, dropout=0.0)
    start = weights_of(trainer.generator), weights_of(trainer.discriminator)
    start = [[w.copy() for w in weights] for weights in start]
    keras_g.set_weights(start[0])
    keras_d.set_weights(start[1])
    article = baseline.Article(keras_g, keras_d)

    def drawn(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return z, trainer.generator(z)

    for n in range(steps):
        real = pictures(16, size, seed=n)
        latents = [torch.randn(count, 100, generator=torch.Generator().manual_seed(n)) for count in (16, 32)]
        draws = iter(latents)
        monkeypatch.setattr(trainer, "_real", lambda *_, real=real: real)
        monkeypatch.setattr(trainer, "_fake", lambda count, draws=draws: drawn(next(draws)))
        stats = trainer.step(np.zeros((128, rows, columns, 3), np.uint8))
        loss_d, loss_g = article.step(real.permute(0, 2, 3, 1).numpy(), *(z.numpy() for z in latents))
        assert stats.loss_discriminator == pytest.approx(loss_d, rel=1e-5)
        assert stats.loss_generator == pytest.approx(loss_g, rel=1e-5)
    for network, model, before in zip((trainer.generator, trainer.discriminator), (keras_g, keras_d), start):
        for mine, theirs, first in zip(weights_of(network), model.get_weights(), before):
            assert abs(theirs - first).max() > 5e-5  # it has learnt
            # A step moves a weight by 2e-4, whatever the gradient's size: rounding shows where it is tiny.
            difference = abs(mine - theirs)
            assert difference.max() < 1e-5
            assert np.quantile(difference, 0.99) < 1e-6
    assert trainer.progress.step == steps


def test_training_steps_equal_keras(baseline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step_both(baseline, size=Size.parse("32"), width=16, steps=3, monkeypatch=monkeypatch)


@pytest.mark.slow
def test_a_full_size_step_equals_keras(baseline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step_both(baseline, size=Size.parse("64"), width=128, steps=1, monkeypatch=monkeypatch)
