"""Pictures → features: one vector a picture from a frozen network, the same way for every score."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from bonsaigan.data.prepare import to_float, to_rgb
from bonsaigan.errors import ConfigError, DataError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    Features = NDArray[np.float32]
    """float32 (N, D), one row a picture."""
    Pictures = NDArray[np.uint8]
    """uint8 (N, H, W, C), 1, 3 or 4 channels."""

NETWORK = "efficientnet-lite2"
INCEPTION = "inception"
NETWORKS = (NETWORK, INCEPTION)
SIDE_PX = 224
CPU_BATCH, GPU_BATCH = 4, 64
FILTER = f"bicubic, antialiased, to {SIDE_PX}x{SIDE_PX}, clamped, not rounded"
INCEPTION_FILTER = "bilinear as in TensorFlow 1, to 299x299 (torch-fidelity's)"


def embed(
    pictures: Pictures, *, network: str = NETWORK, batch: int | None = None, device: str = "cpu"
) -> Features:
    """One vector a picture, from a frozen network.

    Pictures are stretched to a square of 224 px by an antialiased bicubic filter; overshoot is clamped and
    levels are not rounded, as clean-fid does (Parmar et al., CVPR 2022). Greyscale is repeated to three
    channels; transparent pictures are composited over white first, so that what cannot be seen cannot count.

    Args:
        pictures: uint8 (N, H, W, C) of 1, 3 or 4 channels.
        network: one of `NETWORKS`; `inception` needs torch-fidelity and resizes by its own filter.
        batch: pictures at a time; by default few on a CPU, where their feature maps then stay in the cache.
        device: where the network runs.

    Returns:
        float32 (N, 1280), or (N, 2048) for `inception`.

    Raises:
        ConfigError: unknown network, or `inception` without torch-fidelity and its weights.
        DataError: the array has another type or shape.
    """
    import torch

    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] not in (1, 3, 4):
        raise DataError(f"pictures {pictures.dtype}{pictures.shape}: expected uint8 (N, H, W, 1, 3 or 4)")
    check_network(network)
    run = _inception(device) if network == INCEPTION else _lite(network, device)
    batch = batch or (CPU_BATCH if device == "cpu" else GPU_BATCH)
    with torch.inference_mode():
        parts = [run(to_rgb(pictures[i : i + batch])) for i in range(0, len(pictures), batch)]
    if not parts:
        raise DataError("no pictures to score")
    return np.concatenate([part.float().cpu().numpy() for part in parts])


def check_network(name: str) -> None:
    """Make sure that there is such a network.

    Raises:
        ConfigError: there is none.
    """
    if name not in NETWORKS:
        raise ConfigError(f"--features {name!r}: choose one of {', '.join(NETWORKS)}")


@functools.lru_cache(maxsize=2)
def _lite(name: str, device: str) -> Callable[[Pictures], Tensor]:
    import torch
    from torch.nn import functional

    from bonsaigan.models import features

    network = features.load(name).to(device)

    def run(pictures: Pictures) -> Tensor:
        images = to_float(pictures).to(device).contiguous(memory_format=torch.channels_last)
        size = (SIDE_PX, SIDE_PX)
        images = functional.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
        return network.pooled(images.clamp(-1, 1))

    return run


@functools.lru_cache(maxsize=1)
def _inception(device: str) -> Callable[[Pictures], Tensor]:
    import torch

    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except Exception:  # It imports torchvision, which fails in several ways when its version does not fit.
        raise ConfigError(
            "--features inception needs torch-fidelity, which cannot be imported: pip install torch-fidelity"
        ) from None
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).to(device)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"--features inception: torch-fidelity could not load its weights: {first_line(error)}"
        ) from None

    def run(pictures: Pictures) -> Tensor:
        return network(torch.from_numpy(pictures).permute(0, 3, 1, 2).to(device))[0]

    return run
