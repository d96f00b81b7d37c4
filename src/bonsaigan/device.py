"""Where to compute, and in which arithmetic."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import get_args

import torch

from bonsaigan import processes
from bonsaigan.config import Arithmetic, Device, Half, Precision, TrainConfig
from bonsaigan.errors import ConfigError, TrainingError, first_line

PRODUCT_SIDE = 1536
TENSOR_CORES_SINCE = 7, 0
"""CUDA compute capability of the first GPUs that multiply matrices of float16."""
BFLOAT16_GAIN = 1.3
"""How much faster a product must be for a whole step to be faster, casts included."""


def choose_device(wish: Device) -> torch.device:
    """The device for a wish: `auto` takes CUDA, then Apple's MPS, then the CPU; `cuda:1` is one of several.

    Raises:
        ConfigError: the device is not there, or not for several processes.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if processes.count() > 1:  # they meet through `gloo`, which knows nothing of MPS
        if wish == "mps":
            raise ConfigError(f"--device mps: {processes.count()} processes cannot share it; --device cpu")
        there["mps"] = False
    if wish == "auto":
        return _own(torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name])))
    kind, colon, number = wish.partition(":")
    if colon and kind == "cuda" and there["cuda"]:
        if processes.count() > 1 or not number.isdecimal() or int(number) >= torch.cuda.device_count():
            raise ConfigError(
                f"--device {wish!r}: expected cuda:0 to cuda:{torch.cuda.device_count() - 1}, for one process"
            )
        return torch.device("cuda", int(number))
    wish = "cuda" if colon and kind == "cuda" else wish  # pyright: ignore[reportAssignmentType]
    if wish not in there:
        raise ConfigError(f"--device {wish!r}: choose one of auto, {', '.join(there)}")
    if not there[wish]:
        raise ConfigError(f"--device {wish}: there is none here; --device auto takes what there is")
    return _own(torch.device(wish))


def _own(device: torch.device) -> torch.device:
    # Each process of a machine takes a GPU of its own.
    if device.type != "cuda" or processes.count() == 1:
        return device
    there, wanted = torch.cuda.device_count(), processes.local_count()
    if wanted > there:
        raise ConfigError(
            f"{wanted} processes on this machine and {there} GPU{'s' * (there != 1)}, but each needs one: "
            f"torchrun --nproc-per-node {there}, or --device cpu"
        )
    return torch.device("cuda", processes.local_rank())


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a GPU, on the CPU (torch's or numpy's), or on Apple's."""
    known = ("DefaultCPUAllocator", "MPS backend out of memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in known)
    )


@contextmanager
def memory_for(config: TrainConfig) -> Iterator[None]:
    """Run the block; where its memory does not suffice, say what needs less.

    Raises:
        TrainingError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        who = f"process {processes.rank()} of {processes.count()}: " if processes.count() > 1 else ""
        raise TrainingError(
            f"{who}no memory left for --batch {config.batch} in --accumulate {config.accumulate} passes; try "
            f"more passes, or a smaller batch or --size ({first_line(error):.80})"
        ) from None


def choose_precision(wish: Precision, device: torch.device, *, half: Collection[Half]) -> Arithmetic:
    """The arithmetic for a wish.

    Args:
        wish: `auto` takes bfloat16 if the device is faster with it, and float16 on a GPU that has no bfloat16
            but can multiply matrices of float16.
        device: where to compute.
        half: which of the two `auto` may take.

    Raises:
        ConfigError: there is no such arithmetic.
    """
    if wish not in get_args(Precision):
        raise ConfigError(f"--precision {wish!r}: choose one of {', '.join(get_args(Precision))}")
    if wish != "auto":
        return wish
    fastest = _fastest(device) if half else "fp32"
    return fastest if fastest in half else "fp32"


def _fastest(device: torch.device) -> Arithmetic:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if torch.cuda.get_device_capability(device) >= TENSOR_CORES_SINCE else "fp32"
    able = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() and _bfloat16_is_faster()
    return "bf16" if able else "fp32"


def _bfloat16_is_faster() -> bool:
    # Some processors that have the instructions run them at half of float32's rate, others at twice.
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(PRODUCT_SIDE, PRODUCT_SIDE, dtype=dtype)
        times = []
        for _ in range(4):
            started = time.perf_counter()
            torch.mm(a, a)
            times.append(time.perf_counter() - started)
        rates.append(1 / min(times))
    return rates[1] > BFLOAT16_GAIN * rates[0]
