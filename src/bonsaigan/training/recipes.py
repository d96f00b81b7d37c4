"""Recipes: where networks, losses, augmentation and optimiser settings meet.

A recipe is data and a few functions. The loop reads it and knows no architecture; networks know no losses.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from bonsaigan import processes
from bonsaigan.config import (
    Budget,
    ComponentsConfig,
    DataConfig,
    Half,
    NetworkConfig,
    OptimizerConfig,
    PenaltyConfig,
    Size,
    TrainConfig,
)
from bonsaigan.errors import ConfigError
from bonsaigan.models import build_discriminator, build_generator
from bonsaigan.training import losses
from bonsaigan.training.losses import AdversarialLoss


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a recipe proposes for a size of pictures."""

    batch: int
    """Pictures a step."""
    network: NetworkConfig
    """Shape of the networks."""
    optimizer: OptimizerConfig
    """Settings of Adam."""
    augment: tuple[str, ...]
    """Differentiable augmentations."""
    ema_kimg: float
    """Half-life of the generator's average."""
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    """Gradient penalties."""
    components: ComponentsConfig = field(default_factory=ComponentsConfig)
    """The generator's start."""
    generator_turns: int = 1
    """The generator's turns in a step."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to train a generator."""

    name: str
    """As in `--recipe`."""
    summary: str
    """One line for the table of recipes."""
    source: str
    """The paper or article it comes from."""
    family: str
    """Key of the generator in `models`."""
    defaults: Callable[[Size], Defaults]
    """Size of the pictures → settings."""
    discriminator_family: str
    """Key of the discriminator in `models`."""
    loss: AdversarialLoss
    """Both players' losses."""
    optimizer: Callable[[list[nn.Parameter], OptimizerConfig, float], torch.optim.Optimizer]
    """(parameters, settings, learning rate) → optimiser."""
    real_share: float = 1.0
    """Real pictures in a step's batch; the discriminator sees as many generated ones."""
    share_fakes: bool = False
    """The pictures generated for the discriminator serve the generator's first turn too; in one pass they
    are drawn once."""
    split_view: bool = False
    """The discriminator has a frozen `view` whose result both players can share."""
    judge_apart: bool = False
    """Real and generated pictures go through the discriminator apart: for its batch norms, or so that its
    dropout draws the same for each picture however many processes share the batch."""
    resample: Literal["antialias", "bilinear"] = "antialias"
    """How the pictures are resized."""
    fit: Literal["crop", "pad", "squash"] = "crop"
    """How the pictures are fitted unless `--fit` says otherwise."""
    half_precision: tuple[Half, ...] = ("bf16", "fp16")
    """What `--precision auto` may choose besides float32."""
    milestones: tuple[tuple[int, str], ...] = ()
    """Steps after which pictures learnt from 128 photographs at 64 pixels were what, in the words of
    `evaluation.scores.NEARNESS` (benchmarks/results/time_to_quality-bonsai.json)."""

    def generator(self, config: TrainConfig) -> nn.Module:
        """Build the generator with fresh weights."""
        return build_generator(
            self.family, network=config.network, size=config.data.size, channels=config.channels
        )

    def discriminator(self, config: TrainConfig) -> nn.Module:
        """Build the discriminator with fresh weights."""
        return build_discriminator(
            self.discriminator_family,
            network=config.network,
            size=config.data.size,
            channels=config.channels,
        )

    def step_nimg(self, config: TrainConfig) -> int:
        """Real pictures that a step shows."""
        return round(config.batch * self.real_share)

    def own_batches(self, config: TrainConfig) -> tuple[int, int]:
        """One pass's part, in this process, of a step's real pictures, and of the generator's turn.

        Raises:
            ConfigError: the batch does not fall into parts of the same size.
        """
        parts, real = processes.count() * config.accumulate, self.step_nimg(config)
        if real % parts or config.batch % parts:
            several = [f"{processes.count()} processes"] if processes.count() > 1 else []
            several += [f"--accumulate {config.accumulate}"] if config.accumulate > 1 else []
            raise ConfigError(
                f"--batch {config.batch}: {' with '.join(several)} cannot share it evenly; take a multiple "
                f"of {round(parts / self.real_share)}"
            )
        return real // parts, config.batch // parts

    def view(self, discriminator: nn.Module, images: Tensor) -> list[Tensor]:
        """What the discriminator's trained part sees of pictures (B, C, H, W)."""
        return discriminator.view(images) if self.split_view else [images]  # pyright: ignore

    def judge(self, discriminator: nn.Module, view: list[Tensor]) -> list[Tensor]:
        """Logits of each scale, (B, patches)."""
        return discriminator(view) if self.split_view else [discriminator(view[0]).view(-1, 1)]

    def judge_both(
        self, discriminator: nn.Module, real: list[Tensor], fake: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Logits of each scale of the views of as many real as generated pictures."""
        if self.judge_apart:
            return self.judge(discriminator, real), self.judge(discriminator, fake)
        both = self.judge(discriminator, [torch.cat(pair) for pair in zip(real, fake)])
        halves = [scale.split(len(real[0])) for scale in both]
        return [h[0] for h in halves], [h[1] for h in halves]


def find(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(RECIPES)}"
        raise ConfigError(f"--recipe {name!r}: no such recipe; {hint}")
    return RECIPES[name]


def default_config(recipe: Recipe, size: Size, *, channels: int = 3) -> TrainConfig:
    """The settings that a recipe proposes; data and budget are for the caller to replace."""
    defaults = recipe.defaults(size)
    return TrainConfig(
        recipe=recipe.name,
        data=DataConfig(source="", size=size),
        channels=channels,
        budget=Budget(steps=1),
        batch=defaults.batch,
        network=defaults.network,
        optimizer=defaults.optimizer,
        penalty=defaults.penalty,
        augment=defaults.augment,
        ema_kimg=defaults.ema_kimg,
        components=defaults.components,
        generator_turns=defaults.generator_turns,
    )


def _adam(params: list[nn.Parameter], config: OptimizerConfig, lr: float) -> torch.optim.Optimizer:
    betas = (config.beta1, config.beta2)
    return torch.optim.Adam(params, lr=lr, betas=betas, eps=config.epsilon, fused=True)


def _keras_adam(params: list[nn.Parameter], config: OptimizerConfig, lr: float) -> torch.optim.Optimizer:
    from bonsaigan.training.optim import KerasAdam

    return KerasAdam(params, lr=lr, betas=(config.beta1, config.beta2), eps=config.epsilon)


SUBPIXEL_ABOVE = 128 * 128
"""Pixels of a picture beyond which a full last level of the generator costs more than it brings."""


def _projected_defaults(size: Size) -> Defaults:
    return Defaults(
        batch=8,
        network=NetworkConfig(
            latent=128,
            width=256,
            discriminator_width=64,
            told=16,
            soft_colour=True,
            subpixel=size.width_px * size.height_px > SUBPIXEL_ABOVE,
        ),
        # A discriminator that sees through a trained network is right nearly always: its opponent gets more
        # turns, and longer steps until shapes are there (benchmarks/LOG.md).
        optimizer=OptimizerConfig(
            generator_lr=8e-4,
            discriminator_lr=4e-4,
            beta1=0.0,
            beta2=0.99,
            generator_decay_share=0.5,
            generator_decay_kimg=5.0,
        ),
        augment=("flip", "colour", "translation"),
        ema_kimg=1.0,
        components=ComponentsConfig(first_steps=50, weight=30.0, until_step=150),
        generator_turns=2,
    )


def _dcgan_defaults(size: Size) -> Defaults:
    return Defaults(
        batch=16,
        network=NetworkConfig(latent=100, width=512, discriminator_width=64),
        optimizer=OptimizerConfig(generator_lr=2e-4, discriminator_lr=2e-4, beta1=0.5, beta2=0.999),
        augment=("flip", "colour", "translation"),
        ema_kimg=1.0,
    )


def _r3gan_defaults(size: Size) -> Defaults:
    return Defaults(
        batch=8,
        network=NetworkConfig(latent=64, width=128, discriminator_width=128),
        optimizer=OptimizerConfig(
            generator_lr=1e-3,
            discriminator_lr=1e-3,
            beta1=0.0,
            first_beta2=0.9,
            beta2=0.99,
            final_lr_share=0.25,
        ),
        augment=("flip", "colour", "translation"),
        ema_kimg=1.0,
        penalty=PenaltyConfig(gamma=5.0, final_share=0.1),
    )


def _article_defaults(size: Size) -> Defaults:
    return Defaults(
        batch=32,
        network=NetworkConfig(latent=100, width=128, discriminator_width=64),
        optimizer=OptimizerConfig(
            generator_lr=2e-4, discriminator_lr=2e-4, beta1=0.5, beta2=0.999, epsilon=1e-7
        ),
        augment=(),
        ema_kimg=0.0,
    )


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="projected",
            summary="good pictures in minutes: a frozen ImageNet network helps the discriminator see",
            source="Sauer et al., Projected GANs Converge Faster, 2021; Liu et al., FastGAN, 2021",
            family="fastgan",
            defaults=_projected_defaults,
            discriminator_family="projected",
            loss=losses.HINGE,
            optimizer=_adam,
            share_fakes=True,
            split_view=True,
            milestones=((150, "recognisable"), (400, "close to the real ones")),
        ),
        Recipe(
            name="r3gan",
            summary="no pretrained network: nothing in it comes from photographs; slower",
            source="Huang et al., The GAN is dead; long live the GAN!, 2024",
            family="r3gan",
            defaults=_r3gan_defaults,
            discriminator_family="r3gan",
            loss=losses.RELATIVISTIC,
            optimizer=_adam,
            share_fakes=True,
            half_precision=("bf16",),  # the penalties' gradients are not scaled to float16's narrow range
        ),
        Recipe(
            name="dcgan",
            summary="the 2015 classic with augmentation and an average of the weights",
            source="Radford et al., DCGAN, 2016; Zhao et al., DiffAugment, 2020",
            family="dcgan",
            defaults=_dcgan_defaults,
            discriminator_family="dcgan",
            loss=losses.CROSS_ENTROPY,
            optimizer=_adam,
            share_fakes=True,
            judge_apart=True,
        ),
        Recipe(
            name="article",
            summary="the classic Keras tutorial's DCGAN, number for number; slow, for comparison",
            source="the DCGAN tutorial on Caltech-101 bonsai; Radford et al., DCGAN, 2015",
            family="article",
            defaults=_article_defaults,
            discriminator_family="article",
            loss=losses.CROSS_ENTROPY,
            optimizer=_keras_adam,
            real_share=0.5,
            judge_apart=True,
            resample="bilinear",
            fit="squash",
            half_precision=(),
        ),
    )
}
