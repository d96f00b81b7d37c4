"""What a generator learns before it meets a discriminator: the pictures' principal components.

The pictures, made small, are taken for a normal distribution: their mean, and the directions in which they
vary most (Tipping & Bishop, "Probabilistic Principal Component Analysis", 1999, without its noise). A latent
vector has one picture there, blurred and with the set's colours and places of things. A few seconds of
drawing those give the game between the two players a start from all of the set's colours instead of grey.
No single photograph is aimed at, so none is learnt by heart.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bonsaigan import processes
from bonsaigan.data.prepare import to_float
from bonsaigan.data.selection import PictureArray, spread_out

SHORTER_SIDE_PX = 16
"""Of the small pictures: there is little in the components beyond that but noise."""
PICTURES_MAX = 1024
"""Of more, so many, spread over the set."""
PICTURES_AT_ONCE = 32
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
        small = torch.cat(
            [functional.interpolate(to_float(p), hw, mode="bilinear", antialias=True) for p in parts]
        )
        self.mean = small.mean(dim=0)
        _, values, directions = torch.linalg.svd((small - self.mean).flatten(1), full_matrices=False)
        count = min(latent, len(values))
        directions = directions[:count]
        # A direction's sign is arbitrary: its largest number is made positive, so that a run that goes on
        # elsewhere is pulled to the same pictures.
        largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
        self.components = directions * largest.sign() * (values[:count, None] / len(small) ** 0.5)

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
            A scalar, from 0 to 4.
        """
        aims = self.draw(z.cpu()).to(pictures.device)
        small = functional.adaptive_avg_pool2d(pictures.float(), (aims.shape[2], aims.shape[3]))
        return functional.mse_loss(small, aims)

    def draw(self, z: Tensor) -> Tensor:
        """The small picture of each latent vector.

        Args:
            z: float (B, latent), on the CPU.

        Returns:
            float (B, C, h, w) in [-1, 1].
        """
        z = functional.normalize(z, dim=1) * z.shape[1] ** 0.5
        small = self.mean + (z[:, : len(self.components)] @ self.components).view(-1, *self.mean.shape)
        return small.clamp(-1, 1)


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
