"""Keras' Adam, for the recipe that must step exactly as the tutorial's does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class KerasAdam(torch.optim.Adam):
    """Adam (Kingma & Ba 2015) with epsilon where Keras puts it.

    The paper's own "more efficient" form (end of its section 2), which Keras uses, adds epsilon to the root
    of the *uncorrected* second moment; PyTorch adds it after the correction. With the two corrections
    c1 = 1 - β1^t and c2 = 1 - β2^t:

        Keras    p -= lr √c2 / c1 · m / (√v + ε)
        PyTorch  p -= lr / c1 · m / (√(v / c2) + ε')        equal for ε' = ε / √c2

    So each step is PyTorch's fused one, with an epsilon that depends on the step. The state is PyTorch's:
    `step`, `exp_avg`, `exp_avg_sq`.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-7,
    ) -> None:
        """
        Args:
            params: float32 parameters that are always updated together.
            lr: learning rate.
            betas: decay of the two moments.
            eps: Keras' epsilon.
        """
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=True)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the parameters once; see `torch.optim.Optimizer.step`."""
        kept = [group["eps"] for group in self.param_groups]
        for group in self.param_groups:
            count = _steps_taken(self.state, group["params"]) + 1
            group["eps"] /= (1.0 - group["betas"][1] ** count) ** 0.5
        try:
            return super().step(closure)
        finally:
            for group, eps in zip(self.param_groups, kept):
                group["eps"] = eps


def _steps_taken(state: dict[Tensor, Any], params: list[nn.Parameter]) -> int:
    return max((int(state[p]["step"]) for p in params if p in state), default=0)
