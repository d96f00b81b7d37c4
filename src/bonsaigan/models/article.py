"""The two networks of the classic Keras DCGAN tutorial, for any picture size.

At 64 pixels and three channels they have 3,750,275 and 660,929 parameters, as the tutorial prints them.
Weights can be exchanged with Keras: the maps that the generator's dense layer makes, and those that the
discriminator flattens, are in Keras' order (height, width, channels). Initial values are Keras' too:
Glorot uniform (Glorot & Bengio 2010) and zero biases.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bonsaigan.config import Size
from bonsaigan.processes import own_share

GENERATOR_HALVINGS = 3
"""The generator starts on a grid of the picture's size divided by two to this power."""
DISCRIMINATOR_HALVINGS = 4


class ArticleGenerator(nn.Sequential):
    """Latent vectors to pictures: a dense layer, three doublings of the side, one last convolution."""

    def __init__(self, *, latent: int = 100, width: int = 128, size: Size, channels: int = 3) -> None:
        """
        Args:
            latent: length of a latent vector.
            width: channels of the start grid; the doublings have 1, 2 and 4 times as many.
            size: size of the pictures.
            channels: channels of the pictures.
        """
        rows, columns = size.height_px >> GENERATOR_HALVINGS, size.width_px >> GENERATOR_HALVINGS
        super().__init__(
            OrderedDict[str, nn.Module](
                dense=nn.Linear(latent, rows * columns * width),
                reshape=ToMaps(rows=rows, columns=columns),
                up_1=Doubling(width, width),
                relu_1=nn.ReLU(inplace=True),
                up_2=Doubling(width, 2 * width),
                relu_2=nn.ReLU(inplace=True),
                up_3=Doubling(2 * width, 4 * width),
                relu_3=nn.ReLU(inplace=True),
                to_picture=ToPicture(4 * width, channels),
                tanh=nn.Tanh(),
            )
        )
        self.latent, self.width, self.size, self.channels = latent, width, size, channels
        self.apply(_keras_initial_values)

    def forward(self, z: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draw one picture for each latent vector.

        Args:
            z: float (B, latent), drawn from a standard normal distribution.

        Returns:
            Pictures, float (B, C, H, W) in [-1, 1].
        """
        return super().forward(z)


class ArticleDiscriminator(nn.Sequential):
    """Pictures to one number each: four halvings of the side, dropout, a dense layer."""

    def __init__(self, *, width: int = 64, size: Size, channels: int = 3, dropout: float = 0.3) -> None:
        """
        Args:
            width: channels after the first halving; the other three have twice as many.
            size: size of the pictures.
            channels: channels of the pictures.
            dropout: share of the features silenced in training, 0 to 1.
        """
        rows, columns = size.height_px >> DISCRIMINATOR_HALVINGS, size.width_px >> DISCRIMINATOR_HALVINGS
        widths = [channels, width, 2 * width, 2 * width, 2 * width]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for n in range(1, DISCRIMINATOR_HALVINGS + 1):
            layers[f"down_{n}"] = nn.Conv2d(widths[n - 1], widths[n], kernel_size=4, stride=2, padding=1)
            layers[f"leaky_relu_{n}"] = nn.LeakyReLU(0.2)
        layers["flatten"] = FlattenMaps()
        layers["dropout"] = Dropout(dropout)
        layers["dense"] = nn.Linear(rows * columns * widths[-1], 1)
        super().__init__(layers)
        self.apply(_keras_initial_values)

    def forward(self, images: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Score pictures.

        Args:
            images: float (B, C, H, W) in [-1, 1].

        Returns:
            Logits (B,): above zero means "real". The tutorial's sigmoid belongs to the loss.
        """
        return super().forward(images).squeeze(1)


class Doubling(nn.ConvTranspose2d):
    """A transposed convolution, kernel 4, stride 2, Keras' padding "same": maps of twice the side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        # On an even stride Keras' "same" cuts one pixel from each side, which is what padding=1 does here.
        super().__init__(in_channels, out_channels, kernel_size=4, stride=2, padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, C, H, W) to (B, out_channels, 2 H, 2 W)."""
        # The bias is added outside because its gradient inside oneDNN's kernel takes ten times as long.
        doubled = F.conv_transpose2d(input, self.weight, stride=self.stride, padding=self.padding)  # pyright: ignore[reportArgumentType]
        return doubled.add_(_as_maps(self.bias).to(doubled.dtype))


class ToPicture(nn.Conv2d):
    """The last convolution, 5×5, padding "same", from many channels to a picture's few."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=5, padding=2)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out_channels, H, W)."""
        if input.device.type != "cpu" or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return super().forward(input)
        return self._row_by_row(input)

    def _row_by_row(self, maps: Tensor) -> Tensor:
        # CPU kernels compute output channels in sixteens, so three of them waste most of the work. The five
        # rows of the filter as outputs of their own make fifteen: one 1×5 convolution, then each row's
        # result is shifted to its place and summed. The same products, a third of the time.
        rows, columns = self.kernel_size
        height = maps.shape[2]
        by_row = self.weight.permute(2, 0, 1, 3).reshape(-1, self.in_channels, 1, columns)
        partial = F.conv2d(maps, by_row, padding=(0, columns // 2))
        partial = F.pad(partial, (0, 0, rows // 2, rows // 2))
        picture = _as_maps(self.bias)
        for row, part in enumerate(partial.split(self.out_channels, dim=1)):
            picture = picture + part[:, :, row : row + height]
        return picture


class ToMaps(nn.Module):
    """Dense features (B, rows * columns * C), in Keras' order, to maps (B, C, rows, columns)."""

    def __init__(self, *, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, features: Tensor) -> Tensor:
        """Reshape; the result is in channels-last memory without a copy."""
        return features.view(features.shape[0], self.rows, self.columns, -1).permute(0, 3, 1, 2)


class Dropout(nn.Dropout):
    """Dropout whose draws are the same however many processes share a batch."""

    def forward(self, input: Tensor) -> Tensor:
        """Features (B, F), a share `p` of them zero and the others 1 / (1 - p) times as large in training."""
        if not self.training:
            return input
        kept = own_share(lambda n: torch.rand(n, *input.shape[1:]), len(input)) >= self.p
        return input * kept.to(input) / (1 - self.p)


class FlattenMaps(nn.Module):
    """Maps (B, C, H, W) to features (B, H * W * C), in Keras' order."""

    def forward(self, maps: Tensor) -> Tensor:
        """Flatten; no copy when the maps are in channels-last memory."""
        return maps.permute(0, 2, 3, 1).flatten(1)


@torch.no_grad()
def _keras_initial_values(layer: nn.Module) -> None:
    # Keras and PyTorch swap fan in and fan out of a transposed convolution; Glorot uses only their sum.
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _as_maps(bias: Tensor | None) -> Tensor:
    assert bias is not None
    return bias.view(1, -1, 1, 1)
