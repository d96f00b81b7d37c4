"""What a generator learns before it meets a discriminator: the pictures' principal components.

The pictures, made small, are taken for a normal distribution: their mean, and the directions in which they
vary most (Tipping & Bishop, "Probabilistic Principal Component Analysis", 1999, without its noise). A latent
vector has one picture there, blurred and with the set's colours and places of things. A few seconds of
drawing those give the game between the two players a start from all of the set's colours instead of grey.
No single photograph is aimed at, so none is learnt by heart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bonsaigan import processes
from bonsaigan.data.prepare import to_float
from bonsaigan.data.selection import PictureArray, spread_out
from bonsaigan.models.fastgan import pooled

SHORTER_SIDE_PX = 16
"""Of the small pictures: there is little in the components beyond that but noise."""
PICTURES_MAX = 1024
"""Of more, so many, spread over the set."""
PICTURES_AT_ONCE = 32
SMALLEST = 1e-5
"""Of the strongest component, what others must have: n pictures have n - 1, and one of rounding errors."""
SAME = 1e-4
"""How near two pictures' numbers along a component are the same, as a share of its standard deviation."""
LEARNING_RATE, BETA1, BETA2 = 1e-3, 0.9, 0.99


class PrincipalComponents:
    """A set of pictures as a normal distribution."""

    def __init__(self, pictures: PictureArray, *, latent: int):
        """
        Args:
            pictures: uint8 (N, H, W, C).
            latent: length of a latent vector; its numbers scale the strongest components, as many as there
                are of both.
        """
        self.latent = latent
        sides = pictures.shape[1:3]
        hw = [round(side * SHORTER_SIDE_PX / min(sides)) for side in sides]
        parts = torch.from_numpy(spread_out(pictures, PICTURES_MAX)).split(PICTURES_AT_ONCE)
        small = torch.cat([_shrink(to_float(p), hw) for p in parts])
        self.mean = small.mean(dim=0)
        centred = (small - self.mean).flatten(1)
        _, values, directions = torch.linalg.svd(centred, full_matrices=False)
        count = min(latent, int((values > SMALLEST * values[0]).sum()))
        directions = directions[:count]
        # A direction's sign is arbitrary: its largest number is made positive, so that a run that goes on
        # elsewhere is pulled to the same pictures.
        largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
        self.directions = directions * largest.sign()
        self.components = self.directions * (values[:count, None] / len(small) ** 0.5)
        self.ranked = (centred @ self.directions.T).T.sort(dim=1).values.contiguous()

    @classmethod
    def of_first_process(cls, pictures: PictureArray, *, latent: int) -> PrincipalComponents:
        """The first process's for all: another machine's may differ in the last bits."""
        return processes.from_first(cls(pictures, latent=latent) if processes.is_first() else None)

    def distance(self, z: Tensor, pictures: Tensor) -> Tensor:
        """How far pictures are from those of the components, seen small: the mean squared error.

        Args:
            z: float (B, latent), drawn from a standard normal distribution; only its direction matters.
            pictures: float (B, C, H, W) in [-1, 1], what a generator made of it.

        Returns:
            A scalar; 4 at most, if pictures stay in [-1, 1].
        """
        aims = self.draw(z.cpu()).to(pictures.device)
        small = pooled(pictures.float(), aims.shape[2], aims.shape[3])
        return functional.mse_loss(small, aims)

    def draw(self, z: Tensor) -> Tensor:
        """The small picture of each latent vector.

        Args:
            z: float (B, latent), on the CPU.

        Returns:
            float (B, C, h, w) in [-1, 1].
        """
        z = functional.normalize(z, dim=1) * z.shape[1] ** 0.5
        with torch.autocast("cpu", enabled=False):
            apart = z[:, : len(self.components)].float() @ self.components
        return (self.mean + apart.view(-1, *self.mean.shape)).clamp(-1, 1)

    def places(self, pictures: Tensor, *, count: int) -> Tensor:
        """Where pictures lie along the strongest components, as latent vectors have it.

        A picture's rank among those of the set becomes the quantile of a standard normal distribution, so
        that no number by itself tells a photograph from a latent vector.

        Args:
            pictures: float (B, C, H, W) in [-1, 1].
            count: of components.

        Returns:
            float (B, count), on the CPU; 0 where there are fewer components.
        """
        small = _shrink(pictures.cpu(), self.mean.shape[1:])
        ranked = self.ranked[:count]
        with torch.autocast("cpu", enabled=False):  # ranks need all digits
            along = ((small - self.mean).flatten(1) @ self.directions[:count].T).T.contiguous()
        # A photograph of the set is itself among the ranked, but for rounding.
        same = SAME * ranked.square().mean(dim=1, keepdim=True).sqrt()
        below, up_to = torch.searchsorted(ranked, along - same), torch.searchsorted(ranked, along + same)
        ranks, total = (below + up_to) / 2, ranked.shape[1]
        return self._padded(torch.special.ndtri(ranks.clamp(0.5, total - 0.5) / total).T, count)

    def places_of(self, z: Tensor, *, count: int) -> Tensor:
        """The same of latent vectors, float (B, latent): what `places` should find in what they draw."""
        unit = functional.normalize(z.cpu(), dim=1) * z.shape[1] ** 0.5
        return self._padded(unit[:, : len(self.ranked)], count)

    def _padded(self, places: Tensor, count: int) -> Tensor:
        places = places[:, :count]
        return functional.pad(places, (0, count - places.shape[1]))


def _shrink(pictures: Tensor, hw: Sequence[int]) -> Tensor:
    return functional.interpolate(pictures.float(), tuple(hw), mode="bilinear", antialias=True)


def imitate(
    components: PrincipalComponents, generator: nn.Module, *, steps: int, batch_here: int, passes: int = 1
) -> None:
    """Teach a generator to draw what the components draw.

    Args:
        components: of the pictures.
        generator: float (B, latent) → (B, C, H, W); changed in place.
        steps: of Adam, each on new latent vectors from torch's default generator.
        batch_here: pictures in a pass of this process, as many as in each other one.
        passes: that each process takes its part of a step's pictures in.
    """
    parameters = list(generator.parameters())
    device = parameters[0].device
    adam = torch.optim.Adam(parameters, lr=LEARNING_RATE, betas=(BETA1, BETA2), fused=True)
    for _ in range(steps):
        adam.zero_grad(set_to_none=True)
        start = torch.get_rng_state()
        for number in range(passes):
            torch.set_rng_state(start)
            with processes.one_pass(number, passes):
                z = processes.own_share(lambda n: torch.randn(n, components.latent), batch_here).to(device)
                (components.distance(z, generator(z)) / passes).backward()
        processes.average_gradients(parameters)
        adam.step()
