"""Adversarial losses on logits. Each takes one tensor of logits per scale and sums over the scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Logits = Sequence[Tensor]
"""Logits of each scale, float32 (B, patches)."""


@dataclass(frozen=True, kw_only=True)
class AdversarialLoss:
    """The two players' losses."""

    name: str
    """How the recipe table names it."""
    discriminator: Callable[[Logits, Logits], Tensor]
    """(logits of real, logits of generated) → scalar."""
    generator: Callable[[Logits, Logits], Tensor]
    """(logits of real, logits of generated) → scalar; without `paired` the real ones are left empty."""
    paired: bool = False
    """The generator's loss looks at real pictures too."""


def hinge_discriminator(real: Logits, fake: Logits) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (Lim & Ye, "Geometric GAN", 2017, equation 15)."""
    return _total([functional.relu(1 - r).mean() + functional.relu(1 + f).mean() for r, f in zip(real, fake)])


def hinge_generator(_real: Logits, fake: Logits) -> Tensor:
    """-E[D(G(z))] (Lim & Ye 2017, equation 16)."""
    return _total([-f.mean() for f in fake])


def cross_entropy_discriminator(real: Logits, fake: Logits) -> Tensor:
    """Mean binary cross-entropy over real (label 1) and generated (label 0) pictures in one batch.

    Goodfellow et al., "Generative Adversarial Nets", 2014, equation 1, as Keras averages it.
    """
    terms = []
    for r, f in zip(real, fake):
        logits = torch.cat((r.flatten(), f.flatten()))
        labels = torch.cat((torch.ones_like(r).flatten(), torch.zeros_like(f).flatten()))
        terms.append(functional.binary_cross_entropy_with_logits(logits, labels))
    return _total(terms)


def cross_entropy_generator(_real: Logits, fake: Logits) -> Tensor:
    """The non-saturating loss -E[log D(G(z))] (Goodfellow et al. 2014, section 3)."""
    return _total([functional.softplus(-f).mean() for f in fake])


def relativistic_discriminator(real: Logits, fake: Logits) -> Tensor:
    """E[softplus(-(D(x) - D(G(z))))] over pairs (Huang et al., R3GAN, 2024, equation 2)."""
    return _total([functional.softplus(f - r).mean() for r, f in zip(real, fake)])


def relativistic_generator(real: Logits, fake: Logits) -> Tensor:
    """E[softplus(-(D(G(z)) - D(x)))] over pairs (Huang et al. 2024, section 2.1)."""
    return _total([functional.softplus(r - f).mean() for r, f in zip(real, fake)])


def zero_centred_penalty(logits: Logits, seen: Sequence[Tensor]) -> Tensor:
    """E[‖∇ₓ D(x)‖²], to be weighed by γ/2: R1 on real pictures, R2 on generated ones.

    Mescheder et al., "Which Training Methods for GANs do actually Converge?", 2018, equation 9.
    differs: x is what the discriminator sees, which is the picture after its augmentation.

    Args:
        logits: what the discriminator said, still attached to what it saw.
        seen: tensors (B, ...) that take gradients.

    Returns:
        A scalar that can be differentiated again.
    """
    total = torch.stack([scale.sum() for scale in logits]).sum()
    gradients = torch.autograd.grad(total, list(seen), create_graph=True)
    return _total([g.flatten(1).square().sum(dim=1).mean() for g in gradients])


def shares_right(real: Sequence[Tensor], fake: Sequence[Tensor], *, paired: bool) -> tuple[float, float]:
    """Shares of real pictures above zero and of generated ones not above, by means over patches and scales.

    A paired loss sees differences alone, and zero means nothing to it: there both are the share of pairs
    whose real picture is above the generated one.
    """
    of_real, of_fake = (
        torch.stack([scale.detach().float().mean(dim=1) for scale in logits]).mean(dim=0)
        for logits in (real, fake)
    )
    if paired:
        share = (of_real > of_fake).float().mean().item()
        return share, share
    return (of_real > 0).float().mean().item(), (of_fake <= 0).float().mean().item()


HINGE = AdversarialLoss(name="hinge", discriminator=hinge_discriminator, generator=hinge_generator)
CROSS_ENTROPY = AdversarialLoss(
    name="cross-entropy", discriminator=cross_entropy_discriminator, generator=cross_entropy_generator
)
RELATIVISTIC = AdversarialLoss(
    name="relativistic",
    discriminator=relativistic_discriminator,
    generator=relativistic_generator,
    paired=True,
)


def _total(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum()
