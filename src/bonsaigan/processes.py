"""Several processes, one training: what `torchrun` starts, seen from inside.

Each process draws the random values of the whole batch and keeps its own part of them, so that a batch is
the same however many processes share it, and in however many passes each takes its part. Without torchrun
and with one pass everything here does nothing.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from bonsaigan.errors import TrainingError, first_line

T = TypeVar("T")
_pass, _passes = 0, 1
LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process."""
PATIENCE = timedelta(hours=12)
"""So long the others wait for the first process to fetch and prepare the pictures. One that is gone is
noticed at once: its connections close."""


def join() -> None:
    """Meet the other processes that torchrun started; nothing to do without torchrun, or a second time."""
    if dist.is_initialized() or not all(name in os.environ for name in LAUNCHER_VARIABLES):
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, number, processes = next(rendezvous("env://"))
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        # torchrun keeps its store when it starts the processes again: without a name of their own they may
        # find the addresses of those before. On several machines the count is each machine's own: no name.
        store = dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(backend, store=store, rank=number, world_size=processes, timeout=PATIENCE)
    atexit.register(dist.destroy_process_group)


def count() -> int:
    """How many processes share the training."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this one, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_count() -> int:
    """How many of the processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def local_rank() -> int:
    """The number of this one among those of its machine, from 0: the number of its GPU, too."""
    return int(os.environ.get("LOCAL_RANK", "0")) if dist.is_initialized() else 0


@contextmanager
def first_of_machine_first() -> Iterator[None]:
    """Run the block in one process of each machine, then in the others: they find in a cache what it made."""
    if local_rank() > 0:
        _meet()
    yield
    if local_rank() == 0:
        _meet()


def _meet() -> None:
    if count() > 1:
        with _others_may_be_gone():
            dist.barrier()


@contextmanager
def one_pass(number: int, passes: int) -> Iterator[None]:
    """Run the block as one of several passes, from 0, that this process's part of a batch is taken in."""
    global _pass, _passes
    _pass, _passes = number, passes
    try:
        yield
    finally:
        _pass, _passes = 0, 1


def own_share(draw: Callable[[int], Tensor], count_here: int) -> Tensor:
    """This process's, and this pass's, part of random values that are drawn for the pictures of all.

    Args:
        draw: makes the values of so many pictures, a tensor (pictures, ...), from torch's default generator,
            which stands at the same place in every process and every pass.
        count_here: pictures in this pass of this process, as many as in each other one.
    """
    parts, part = count() * _passes, rank() * _passes + _pass
    if parts == 1:
        return draw(count_here)
    return draw(count_here * parts)[part * count_here : (part + 1) * count_here]


@torch.no_grad()
def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes.

    Raises:
        TrainingError: another process is gone.
    """
    if count() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    together = torch.cat([g.reshape(-1) for g in gradients])
    with _others_may_be_gone():
        dist.all_reduce(together)
    together /= count()
    for gradient, mean in zip(gradients, together.split([g.numel() for g in gradients])):
        gradient.copy_(mean.view(gradient.shape))


def mean(values: Sequence[float]) -> list[float]:
    """The mean of each value over the processes, float64 where one alone is."""
    return [value / count() for value in total(values)]


def total(values: Sequence[float]) -> list[float]:
    """The sum of each value over the processes.

    Raises:
        TrainingError: another process is gone.
    """
    if count() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64)
    with _others_may_be_gone():
        dist.all_reduce(sums)
    return sums.tolist()


def from_first(value: T | None) -> T:
    """The first process's value, in every process; the others may pass None.

    Raises:
        TrainingError: another process is gone.
    """
    box = [value]
    if count() > 1:
        with _others_may_be_gone():
            dist.broadcast_object_list(box, src=0)
    return box[0]  # pyright: ignore[reportReturnType]


def gathered(part: Tensor) -> Tensor:
    """The parts of all processes, equal in shape, joined along the first axis in their order.

    Raises:
        TrainingError: another process is gone.
    """
    if count() == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(count())]
    with _others_may_be_gone():
        dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


@contextmanager
def _others_may_be_gone() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        why = first_line(error)
        raise TrainingError(
            f"process {rank()} of {count()} lost the others ({why:.80}); the state saved before is kept"
        ) from None
