"""Colour profiles (ICC): what a camera or a press meant by its numbers, as sRGB."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

PROFILE_MAX_BYTES = 4 << 20
SEEN_LEVELS = 2
"""Where no colour moves farther than this, of 255, a profile is sRGB by another name."""


def to_srgb(picture: np.ndarray, profile: bytes) -> np.ndarray | None:
    """Colours of a profile as sRGB.

    Args:
        picture: uint8 (H, W, 3 or 4); alpha stays.
        profile: as the file has it, from anyone.

    Returns:
        The same shape; None where there is nothing to do, or the profile cannot be used.
    """
    transform = _transform(profile, "RGB")
    if transform is None:
        return None
    colours = Image.fromarray(np.ascontiguousarray(picture[..., :3]))
    moved = np.asarray(ImageCms.applyTransform(colours, transform))
    if np.abs(moved.astype(np.int16) - picture[..., :3]).max() <= SEEN_LEVELS:
        return None
    return np.concatenate((moved, picture[..., 3:]), axis=2)


def from_print(image: Image.Image) -> Image.Image:
    """A CMYK picture in RGB: by its own profile, or by Pillow's formula where none can be used."""
    transform = _transform(image.info.get("icc_profile") or b"", "CMYK")
    found = None if transform is None else ImageCms.applyTransform(image, transform)
    return image.convert("RGB") if found is None else found


@functools.lru_cache(maxsize=16)  # a set has one or two
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    if not 0 < len(profile) <= PROFILE_MAX_BYTES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space  # pyright: ignore[reportAttributeAccessIssue]
        if space.strip() != mode:
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return None
