"""A step of training. It stands apart below, ruled off, to be read as the papers' algorithm.

Randomness of step n is a pure function of (seed, n), so that a run that was stopped and resumed ends with
the same weights as one that was not, on a CPU bit for bit. Processes that torchrun started share each step's
batch (see `processes.py`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn, optim

from bonsaigan import processes
from bonsaigan.config import TrainConfig
from bonsaigan.data.prepare import to_float
from bonsaigan.data.selection import PictureArray
from bonsaigan.errors import NotFiniteError
from bonsaigan.runs import CHECKPOINT_DIR
from bonsaigan.training import checkpoint
from bonsaigan.training.augment import augment
from bonsaigan.training.checkpoint import Progress
from bonsaigan.training.components import PrincipalComponents, imitate
from bonsaigan.training.ema import GeneratorEma
from bonsaigan.training.losses import shares_right, zero_centred_penalty
from bonsaigan.training.recipes import Recipe, find
from bonsaigan.training.vitals import all_finite

STEP_STREAM, INITIAL_STREAM, COMPONENTS_STREAM = 1, 2, 3
ARITHMETIC = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLD_NOISE = 0.2
"""Standard deviation of noise on what the discriminator is told, so that no photograph is known by it."""
AFTER_NOT_FINITE = (
    "the state saved before is kept, but resume would meet it again: take its networks over by train --init, "
    "with a lower --lr or --precision fp32"
)
View = list[Tensor]
"""What the discriminator's trained part sees of pictures, scale by scale, and last what it is told."""


class Look(NamedTuple):
    """One pass's pictures."""

    real: View
    fake: View
    pull: Tensor
    """What the generator's loss has besides: towards the principal components."""


@dataclass(frozen=True)
class StepStats:
    """What a step tells."""

    loss_generator: float
    """Summed over scales."""
    loss_discriminator: float
    """Summed over scales."""
    accuracy_real: float
    """Share of the step's real pictures that the discriminator was right about, 0 to 1."""
    accuracy_fake: float
    """Share of the generated ones."""


class Trainer:
    """Networks, optimisers, average and counters of a run, and how they take a step."""

    def __init__(self, config: TrainConfig, *, device: torch.device):
        self.config, self.device = config, device
        self.recipe: Recipe = find(config.recipe)
        seed_all(config.seed, INITIAL_STREAM, 0)
        self.generator = self._place(self.recipe.generator(config))
        self.discriminator = self._place(self.recipe.discriminator(config))
        settings = config.optimizer
        self.judged = [p for p in self.discriminator.parameters() if p.requires_grad]
        self.generator_adam = self.recipe.optimizer(
            list(self.generator.parameters()), settings, settings.generator_lr
        )
        self.discriminator_adam = self.recipe.optimizer(self.judged, settings, settings.discriminator_lr)
        self.ema = GeneratorEma(self.generator, half_life_kimg=config.ema_kimg)
        self.progress = Progress()
        self.components: PrincipalComponents | None = None
        self.gamma = config.penalty.gamma
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.real_batch, self.fake_batch = self.recipe.own_batches(config)

    # -----------------------------------------------------------------------------------------------------
    # One step: the discriminator learns to tell real from generated, then the generator learns to be taken
    # for real (Goodfellow et al. 2014, algorithm 1).

    def step(self, pictures: PictureArray) -> StepStats:
        """Train the discriminator once and the generator as often as it has turns.

        Args:
            pictures: uint8 (N, H, W, C), the whole training set; what is not in memory is read as needed.

        Raises:
            NotFiniteError: a loss is not finite; no weight was changed by it.
        """
        config, recipe = self.config, self.recipe
        seed_all(config.seed, STEP_STREAM, self.progress.step)
        one_look = recipe.share_fakes and config.accumulate == 1  # serves both players
        start, told = torch.get_rng_state(), []
        look: Look | None = None

        # --- the discriminator's turn: tell real pictures from generated ones
        self._train_discriminator(True)
        for _ in self._passes(self.discriminator_adam):
            torch.set_rng_state(start)
            look = self._look(pictures, into_generator=one_look)
            loss, *right = self._tell_apart(look.real, look.fake)
            self._add_gradient(loss, "discriminator")
            told.append([loss.item(), *right])

        # --- the generator's turn, or turns: have its pictures taken for real
        self._train_discriminator(False)
        persuaded = []
        for turn in range(config.generator_turns):
            shared, own = start if recipe.share_fakes and turn == 0 else None, torch.get_rng_state()
            for _ in self._passes(self.generator_adam):
                if look is None or not one_look or turn > 0:
                    look = self._look_again(pictures, shared, own)
                with self._arithmetic():
                    against = recipe.judge(self.discriminator, look.real) if recipe.loss.paired else []
                    loss = recipe.loss.generator(against, recipe.judge(self.discriminator, look.fake))
                self._add_gradient(loss + look.pull, "generator")
                persuaded.append(loss.item())
            self.scaler.update()

        # --- the average follows
        self.progress.step += 1
        seen_nimg = recipe.step_nimg(config)
        self.progress.seen_nimg += seen_nimg
        self.ema.update(self.generator, batch=seen_nimg, seen_nimg=self.progress.seen_nimg)
        return StepStats(*processes.mean([float(np.mean(persuaded)), *np.mean(told, axis=0).tolist()]))

    def _passes(self, adam: optim.Optimizer) -> Iterator[None]:
        """A player's turn: the parts of its batch, one after the other, and then the descent."""
        adam.zero_grad(set_to_none=True)
        for number in range(self.config.accumulate):
            with processes.one_pass(number, self.config.accumulate):
                yield
        processes.average_gradients(p for group in adam.param_groups for p in group["params"])
        self.scaler.step(adam)

    def _look(self, pictures: PictureArray, *, into_generator: bool) -> Look:
        with self._arithmetic(), contextlib.nullcontext() if into_generator else torch.no_grad():
            z, fake = self._fake(self.real_batch)
            real = self._real(pictures, self.real_batch)
            seen = self._view(real, self._told_of(real))
            return Look(seen, self._view(fake, self._told(z)), self._pull(z, fake))

    def _look_again(self, pictures: PictureArray, shared: Tensor | None, own: Tensor) -> Look:
        """A generator's turn, with gradients: the pictures of random state `shared`, or new ones of `own`."""
        if shared is not None:
            torch.set_rng_state(shared)
            look = self._look(pictures, into_generator=True)
            torch.set_rng_state(own)
            return look
        torch.set_rng_state(own)
        if self.recipe.loss.paired:
            return self._look(pictures, into_generator=True)
        with self._arithmetic():
            z, fake = self._fake(self.fake_batch)
            return Look([], self._view(fake, self._told(z)), self._pull(z, fake))

    def _tell_apart(self, view_real: View, view_fake: View) -> tuple[Tensor, float, float]:
        """The discriminator's loss, and the shares of real and of generated pictures that it got right."""
        penalised = self.config.penalty.gamma > 0
        seen_real, seen_fake = (
            [scale.detach().requires_grad_(penalised) for scale in view] for view in (view_real, view_fake)
        )
        with self._arithmetic():
            logits_real, logits_fake = self.recipe.judge_both(self.discriminator, seen_real, seen_fake)
            loss = self.recipe.loss.discriminator(logits_real, logits_fake)
        if penalised:
            r1, r2 = (
                zero_centred_penalty(logits_real, seen_real),
                zero_centred_penalty(logits_fake, seen_fake),
            )
            loss = loss + self.gamma / 2 * (r1 + r2)
        return loss, *shares_right(logits_real, logits_fake, paired=self.recipe.loss.paired)

    def _add_gradient(self, loss: Tensor, who: str) -> None:
        value = processes.mean([loss.item()])[0]  # all processes stop at once, or none
        if not math.isfinite(value):
            raise NotFiniteError(
                f"the {who}'s loss became {value} at step {self.progress.step}; {AFTER_NOT_FINITE}"
            )
        self.scaler.scale(loss / self.config.accumulate).backward()

    # -----------------------------------------------------------------------------------------------------

    def told_apart(self, real: Tensor, fake: Tensor, *, z: Tensor) -> tuple[float, float]:
        """Shares of photographs and of generated pictures that the discriminator is right about, 0 to 1.

        Args:
            real: float (N, C, H, W) in [-1, 1], photographs.
            fake: float (N, C, H, W) in [-1, 1], generated pictures.
            z: float (N, latent), what these were drawn from.
        """
        self.discriminator.eval()
        logits = []
        with torch.no_grad():
            for images, told in ((real, self._told_of(real)), (fake, self._told(z))):
                view = [*self.recipe.view(self.discriminator, images.to(self.device)), *told]
                logits.append(self.recipe.judge(self.discriminator, view))
        self.discriminator.train()
        return shares_right(*logits, paired=self.recipe.loss.paired)

    def anneal(self) -> None:
        """Bring learning rates, β₂ and γ to where they belong by now, linearly."""
        settings, penalty = self.config.optimizer, self.config.penalty
        done = min(1.0, self.progress.done_share(self.config.budget))
        first_beta2 = settings.beta2 if settings.first_beta2 is None else settings.first_beta2
        decay_nimg = settings.generator_decay_kimg * 1000
        decayed = min(1.0, self.progress.seen_nimg / decay_nimg) if decay_nimg else 0.0
        generator_lr = settings.generator_lr * _between(1.0, settings.generator_decay_share, decayed)
        for adam, rate in (
            (self.generator_adam, generator_lr),
            (self.discriminator_adam, settings.discriminator_lr),
        ):
            for group in adam.param_groups:
                group["lr"] = rate * _between(1.0, settings.final_lr_share, done)
                group["betas"] = (settings.beta1, _between(first_beta2, settings.beta2, done))
        self.gamma = penalty.gamma * _between(1.0, penalty.final_share, done)

    def check_finite(self) -> None:
        """Make sure that the weights may be saved: a finite loss may have a gradient that is not.

        Raises:
            NotFiniteError: a weight is not finite; what was saved before is kept.
        """
        if not all_finite(self.generator, self.discriminator, self.ema.module):
            raise NotFiniteError(
                f"a weight stopped being a finite number by step {self.progress.step}; {AFTER_NOT_FINITE}"
            )

    def save(self, folder: Path) -> None:
        """Write the full state; see `checkpoint.save`.

        Raises:
            NotFiniteError: see `check_finite`.
            CheckpointError: it cannot be written.
        """
        self.check_finite()
        if self.scaler.is_enabled():
            scaling = self.scaler.state_dict()
            self.progress.loss_scale = scaling["scale"]
            self.progress.loss_scale_steps = scaling["_growth_tracker"]
        checkpoint.save(
            folder / CHECKPOINT_DIR, tensors=checkpoint.pack(self._parts()), progress=self.progress
        )

    def restore(self, folder: Path) -> str | None:
        """Take up the state in `folder`; a sentence if the latest one was damaged.

        The first process reads it; the others, which may be on other machines, take it from there.

        Raises:
            CheckpointError: there is none that can be used.
        """
        state = checkpoint.load(folder / CHECKPOINT_DIR) if processes.is_first() else None
        tensors, self.progress, warning = processes.from_first(state)
        checkpoint.unpack(tensors, self._parts())
        if self.scaler.is_enabled() and self.progress.loss_scale is not None:
            scale, steps = self.progress.loss_scale, self.progress.loss_scale_steps
            own = self.scaler.state_dict()
            self.scaler.load_state_dict({**own, "scale": scale, "_growth_tracker": steps})
        if warning and processes.is_first():
            checkpoint.set_aside_damaged(folder / CHECKPOINT_DIR)
        return warning

    def begin(self, pictures: PictureArray, *, anew: bool) -> None:
        """Before any step of this process: look at the pictures' principal components, while they matter.

        Args:
            pictures: uint8 (N, H, W, C).
            anew: the run is a new one, so that the generator learns to draw them.
        """
        settings = self.config.components
        first_steps = settings.first_steps if anew else 0
        pulled = self.progress.step < settings.until_step
        if not (first_steps or pulled or self.config.network.told):
            return
        self.components = PrincipalComponents.of_first_process(pictures, latent=self.config.network.latent)
        if first_steps:
            seed_all(self.config.seed, COMPONENTS_STREAM, 0)
            imitate(
                self.components,
                self.generator,
                steps=first_steps,
                batch_here=self.fake_batch,
                passes=self.config.accumulate,
            )
            self.ema.module.load_state_dict(self.generator.state_dict())

    def begin_from(self, folder: Path) -> str | None:
        """Take the networks of another run; optimisers, average and counters begin anew.

        A sentence if that run's latest state was damaged, and the one before it was taken.

        Wang et al., "Transferring GANs: generating images from limited data", ECCV 2018: both players'
        weights are worth taking over, the discriminator's more.

        Raises:
            CheckpointError: its state cannot be used.
        """
        state = checkpoint.load(folder / CHECKPOINT_DIR) if processes.is_first() else None
        tensors, _, warning = processes.from_first(state)
        players = ("generator", "discriminator")
        own = {name: value for name, value in tensors.items() if name.partition(".")[0] in players}
        checkpoint.unpack(own, {name: self._parts()[name] for name in players})
        self.ema.module.load_state_dict(self.generator.state_dict())
        return warning

    def _parts(self) -> dict[str, nn.Module | optim.Optimizer]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "ema": self.ema.module,
            "generator_adam": self.generator_adam,
            "discriminator_adam": self.discriminator_adam,
        }

    def _place(self, module: nn.Module) -> nn.Module:
        return module.to(self.device, memory_format=torch.channels_last).train()  # pyright: ignore

    def _arithmetic(self) -> contextlib.AbstractContextManager[object]:
        dtype = ARITHMETIC[self.config.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def _real(self, pictures: PictureArray, count: int) -> Tensor:
        which = processes.own_share(lambda n: torch.randint(len(pictures), (n,)), count).numpy()
        return to_float(pictures[which]).to(self.device).contiguous(memory_format=torch.channels_last)

    def _fake(self, count: int) -> tuple[Tensor, Tensor]:
        latent = self.config.network.latent
        z = processes.own_share(lambda n: torch.randn(n, latent), count).to(self.device)
        return z, self.generator(z)

    def _pull(self, z: Tensor, fake: Tensor) -> Tensor:
        settings, step = self.config.components, self.progress.step
        if self.components is None or step >= settings.until_step:
            return torch.zeros((), device=self.device)
        weight = settings.weight * (1 - step / settings.until_step)
        return weight * self.components.distance(z, fake)

    def _view(self, images: Tensor, told: View) -> View:
        return [*self.recipe.view(self.discriminator, augment(images, self.config.augment)), *told]

    def _told(self, z: Tensor) -> View:
        """What the discriminator is told of generated pictures: latents' first numbers."""
        if not self.config.network.told:
            return []
        assert self.components is not None, "begin first"
        return self._blurred(self.components.places_of(z, count=self.config.network.told))

    def _told_of(self, images: Tensor) -> View:
        """What it is told of photographs: where they lie along the principal components."""
        if not self.config.network.told:
            return []
        assert self.components is not None, "begin first"
        return self._blurred(self.components.places(images, count=self.config.network.told))

    def _blurred(self, places: Tensor) -> View:
        noise = processes.own_share(lambda n: torch.randn(n, places.shape[1]), len(places))
        return [(places + TOLD_NOISE * noise).to(self.device)]

    def _train_discriminator(self, on: bool) -> None:
        for parameter in self.judged:
            parameter.requires_grad_(on)


def _between(first: float, last: float, share: float) -> float:
    return first + (last - first) * share


def seed_all(seed: int, stream: int, step: int) -> None:
    """Seed torch's default generators by (seed, stream, step) alone."""
    words = np.random.SeedSequence([seed, stream, step]).generate_state(2, dtype=np.uint32)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
