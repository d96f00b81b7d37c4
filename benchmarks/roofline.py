"""How near a step comes to the machine's limit: counted operations against the rate of a matrix product.

    python benchmarks/roofline.py --recipe projected

Counts what convolutions and products must compute (torch's FLOP counter, forward and backward; a transposed
convolution by what it does, not by the upsampling and convolution that it stands for), times the whole step
and each of its parts alone, and measures a 4096 x 4096 product beside them. Writes
results/roofline-RECIPE-SIZE.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import bonsaigan  # noqa: F401  # before torch: it settles how threads wait

# isort: split
import _result
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bonsaigan.training import session
from bonsaigan.training.trainer import Trainer

REPEATS, WARM_UP, MATRIX_SIDE = 12, 3, 4096


def main() -> None:
    """Count and time a step of a recipe at its defaults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="projected")
    parser.add_argument("--size", default="64")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    asked = parser.parse_args()
    wishes = session.Wishes(recipe=asked.recipe, size=asked.size, precision=asked.precision, steps=1)
    plan = session.plan("demo:bonsai:64", wishes)
    trainer = Trainer(plan.config, device=torch.device("cpu"))
    trainer.begin(np.asarray(plan.training_pictures), anew=False)
    dtype = torch.bfloat16 if plan.config.precision == "bf16" else torch.float32
    rate = product_gflop_per_sec(dtype)
    parts = {"step": lambda: trainer.step(np.asarray(plan.training_pictures))}
    parts |= dict(parts_of(trainer))
    found = {name: measure(work, rate) for name, work in parts.items()}
    _result.write(
        f"roofline-{asked.recipe}-{asked.size}",
        {
            "recipe": asked.recipe,
            "size": asked.size,
            "batch": plan.config.batch,
            "precision": plan.config.precision,
            "product_gflop_per_sec": round(rate),
            "parts": found,
            "torch": torch.__version__,
        },
    )


def parts_of(trainer: Trainer) -> Iterator[tuple[str, Callable[[], object]]]:
    """The parts of a step as functions: each does what it does within one."""
    config, recipe, discriminator = trainer.config, trainer.recipe, trainer.discriminator
    half = round(config.batch * recipe.real_share)
    z = torch.randn(half, config.network.latent)
    images = trainer.generator(z).detach().contiguous(memory_format=torch.channels_last)
    told = trainer._told(z)
    with trainer._arithmetic():
        view = [scale.detach() for scale in trainer._view(images, told)]

    def forward_and_back(work: Callable[[], list[Tensor]]) -> None:
        with trainer._arithmetic():
            results = work()
        torch.stack([r.float().sum() for r in results]).sum().backward()

    def look_and_back() -> list[Tensor]:
        return trainer._view(images.clone().requires_grad_(), told)

    def judge_real_and_fake() -> list[Tensor]:
        trainer._train_discriminator(True)
        return [logit for pair in recipe.judge_both(discriminator, view, view) for logit in pair]

    def judge_for_the_generator() -> list[Tensor]:
        trainer._train_discriminator(False)
        return recipe.judge(discriminator, [scale.clone().requires_grad_() for scale in view])

    def look() -> None:
        with trainer._arithmetic(), torch.no_grad():
            trainer._view(images, told)

    def optimise() -> None:
        for network in (trainer.generator, nn.ParameterList(trainer.judged)):
            for parameter in network.parameters():
                parameter.grad = parameter if parameter.grad is None else parameter.grad
        trainer.generator_adam.step()
        trainer.discriminator_adam.step()
        trainer.ema.update(trainer.generator, batch=half, seen_nimg=10**6)

    yield "generator, forward and back", lambda: forward_and_back(lambda: [trainer.generator(z)])
    yield "view of real pictures", look
    yield "view of generated pictures, forward and back", lambda: forward_and_back(look_and_back)
    yield "heads, real and generated", lambda: forward_and_back(judge_real_and_fake)
    yield "heads, for the generator", lambda: forward_and_back(judge_for_the_generator)
    yield "optimisers and average", optimise


def measure(work: Callable[[], object], rate: float) -> dict[str, float]:
    """Counted GFLOP, median milliseconds, and the share of the product's rate."""
    with FlopCounterMode(display=False) as counter:
        work()
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    gflop, seconds = counter.get_total_flops() / 1e9, float(np.median(times))
    return {
        "gflop": round(gflop, 2),
        "ms": round(1000 * seconds, 1),
        "gflop_per_sec": round(gflop / seconds, 1),
        "share_of_product_rate": round(gflop / seconds / rate, 3),
    }


def product_gflop_per_sec(dtype: torch.dtype) -> float:
    """Rate of a product of two square matrices: the best of five."""
    a = torch.randn(MATRIX_SIDE, MATRIX_SIDE).to(dtype)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        torch.mm(a, a)
        times.append(time.perf_counter() - began)
    return 2 * MATRIX_SIDE**3 / min(times) / 1e9


if __name__ == "__main__":
    main()
