"""Data-parallel training by the processes that ``torchrun`` has started: who writes, what is shared, what is averaged.

Every process has all networks and the same settings. Each computes the gradients of its part of a batch; their average
over the processes is that of the whole batch, so that all of them take the same step and stay equal to the bit. The
first one alone measures, reports and writes. Without ``torchrun`` all of this does nothing.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from restore_env.compute.sole_writer import sole_writer
from restore_env.errors import ImageRestoreError
from tools_zoo.training.settings import TrainingSettings

MEETING, PATIENCE = timedelta(minutes=10), timedelta(days=1)
"""How long processes wait for all to start, and then for one another: the first one may train an agent meanwhile."""
_ALONE: ContextVar[bool] = ContextVar("_ALONE", default=False)
_AnySettings = TypeVar("_AnySettings", bound=TrainingSettings)
_Result = TypeVar("_Result")


class ProcessError(ImageRestoreError):
    """A run that several processes cannot share, or another process that has failed or ended."""


def launched() -> int:
    """How many processes ``torchrun`` has started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def count() -> int:
    """How many processes train together: those of torch.distributed's group, if there is one."""
    if _ALONE.get() or not dist.is_initialized():
        return 1
    return dist.get_world_size()


def is_first() -> bool:
    """Whether this process is the one that measures, reports and writes."""
    return count() == 1 or dist.get_rank() == 0


@contextmanager
def joined(settings: _AnySettings) -> Iterator[_AnySettings]:
    """Join the processes that ``torchrun`` has started, if it has; standard output is the first one's.

    The folder ``settings.out`` is theirs meanwhile. CUDA tensors are averaged by NCCL, others by Gloo.

    Yields:
        The settings of this process: of the device ``cuda`` each process takes its own GPU.

    Raises:
        ProcessError: the device is one GPU for all.
        BusyError: other processes are writing into the folder.
    """
    if launched() == 1:
        with sole_writer(settings.out):
            yield settings
        return
    kind, _, index = settings.device.partition(":")
    if kind == "cuda":
        if index:
            raise ProcessError(f"device {settings.device}: with several processes give cuda; each takes its own GPU")
        settings = replace(settings, device=f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(settings.device)
    store, rank, processes = _meeting()
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=processes, timeout=PATIENCE)
    try:
        with ExitStack() as stack, Path(os.devnull).open("w") as nowhere:
            stack.enter_context(redirect_stdout(sys.stdout if is_first() else nowhere))
            by_first(lambda: stack.enter_context(sole_writer(settings.out)))
            yield settings
    finally:
        dist.destroy_process_group()


def _meeting() -> tuple[Any, int, int]:
    """Where the processes find one another, after all have come; the number of this one, and of all.

    The store of ``torchrun`` outlives a restart, with the addresses of the processes that were killed: each start has
    names of its own there.
    """
    store, rank, processes = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        start = f"start-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
        store = dist.PrefixStore(start, store)  # type: ignore[attr-defined]
    store.set(str(rank), "here")
    with _answered():
        store.wait([str(each) for each in range(processes)], MEETING)
    return store, rank, processes


def by_first(work: Callable[[], _Result]) -> _Result:
    """Let the first process do something, such as writing a file, while the others wait; all get what it returns.

    Within it, that process is alone.

    Raises:
        ProcessError: (of the others) the first one's error.
    """
    if count() == 1:
        return work()
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if is_first():
        token = _ALONE.set(True)
        try:
            outcome[0] = work()
        except Exception as error:
            failure, outcome[1] = error, f"the first process: {error}"
        finally:
            _ALONE.reset(token)
    with _answered():
        dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise failure or ProcessError(outcome[1])
    result: _Result = outcome[0]
    return result


def check_batch(size: int) -> None:
    """Raise :class:`ProcessError` if the processes cannot take equal parts of a batch of this size."""
    less = size // count() * count()
    if less != size:
        right = f"{less} or {less + count()}" if less else f"{count()}"
        raise ProcessError(f"batch_size {size} cannot be shared by {count()} processes: choose {right}")


def parts(batches: Callable[[Iterable[int]], Generator[Any, None, None]], first: int) -> Generator[Any, None, None]:
    """This process's part of every batch: an equal share of its rows.

    Each process makes the batches of some steps and gives the others their parts, so that the work is shared, too.

    Args:
        batches: makes the batches of steps, tensors or arrays, or tuples of these.
        first: the first step.
    """
    if count() == 1:
        yield from batches(itertools.count(first))
        return
    rank, together = dist.get_rank(), count()
    own = batches(itertools.count(first + (rank - first) % together, together))
    try:
        for step in itertools.count(first):
            received: list[Any] = [None]
            sent = _parts(next(own), together) if step % together == rank else None
            with _answered():
                dist.scatter_object_list(received, sent, src=step % together)
            yield received[0]
    finally:
        own.close()


def _parts(batch: Any, processes: int) -> list[Any]:
    """The rows of a batch in as many parts, in their order, on the host."""
    if isinstance(batch, tuple):
        return list(zip(*(_parts(side, processes) for side in batch), strict=True))
    host = batch.cpu() if isinstance(batch, Tensor) else batch
    rows = len(host) // processes
    return [host[start : start + rows] for start in range(0, rows * processes, rows)]


def synchronise(network: nn.Module) -> None:
    """Give a network the weights of the first process, and its batch norm the statistics of the whole batch."""
    if count() == 1:
        return
    for tensor in itertools.chain(network.parameters(), network.buffers()):
        values = tensor.detach().contiguous()
        with _answered():
            dist.broadcast(values, 0)
        tensor.detach().copy_(values)
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _BatchNorm  # in place: parameters, buffers and whoever holds it stay


def total(values: Sequence[float] | np.ndarray[Any, Any]) -> list[float]:
    """The sums of numbers over the processes."""
    if count() == 1:
        return list(values)
    numbers = torch.tensor(np.asarray(values, dtype=np.float64))
    with _answered():
        dist.all_reduce(numbers)
    sums: list[float] = numbers.tolist()
    return sums


def agreed(seconds: float, stops: bool) -> tuple[float, bool]:
    """The seconds by the first process's clock, and whether any process was told to stop."""
    seconds, stopping = total([seconds if is_first() else 0.0, float(stops)])
    return seconds, stopping > 0


def averaged(values: Tensor) -> Tensor:
    """The mean of a tensor over the processes; gradients pass to all of them.

    A loss that is no mean over the images of a batch needs it: for what it divides by, or what it compares with.
    """
    if count() == 1:
        return values
    result: Tensor = _Averaged.apply(values)  # type: ignore[no-untyped-call]
    return result


def average_gradients(network: nn.Module, loss: Tensor) -> Tensor:
    """Average the gradients over the processes and return the loss of the whole batch.

    A parameter that only some processes have used counts as 0 in the others; one that none has used gets no gradient.
    """
    if count() == 1:
        return loss
    parameters = list(network.parameters())
    uses = total([float(parameter.grad is not None) for parameter in parameters])
    used = [parameter for parameter, processes in zip(parameters, uses, strict=True) if processes]
    for parameter in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in used if parameter.grad is not None]
    means = _mean(torch.cat([*(gradient.reshape(-1) for gradient in gradients), loss.float().reshape(1)]))
    own = torch.split(means[:-1], [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, own, strict=True):
        gradient.copy_(mean.view_as(gradient))
    return means[-1]


def _mean(values: Tensor) -> Tensor:
    values = values.contiguous()
    with _answered():
        dist.all_reduce(values)
    return values.div_(dist.get_world_size())


@contextmanager
def _answered() -> Iterator[None]:
    """Say in one line that another process has ended, where torch.distributed cannot reach it."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessError(
            "another process of this training has ended: the same command goes on from the checkpoint"
            f" (torch.distributed: {error})"
        ) from None


class _Averaged(torch.autograd.Function):
    """The mean over the processes; its gradient is the mean of theirs."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        return _mean(values.clone())

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient.clone())


class _BatchNorm(nn.BatchNorm2d):
    """Batch norm by the statistics of the whole batch (``nn.SyncBatchNorm`` does not run on a CPU)."""

    def forward(self, images: Tensor) -> Tensor:
        if not self.training and self.track_running_stats:
            return super().forward(images)
        values = images.float()
        mean = averaged(values.mean((0, 2, 3)))
        centred = values - mean[:, None, None]
        variance = averaged(centred.square().mean((0, 2, 3)))
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            seen = count() * values.numel() // values.shape[1]
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(variance.detach() * (seen / (seen - 1)), momentum)
        normal = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.weight is not None and self.bias is not None:
            normal = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return normal.to(images.dtype)
