"""Gradient descent by a budget: resumable to the bit, with EMA, live progress and an end on the clock.

Every batch is a function of its step's number, so nothing but the networks, the optimiser and the step has to be kept:
a run that was killed and resumed equals one that was not.
"""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from restore_env.errors import ImageRestoreError
from restore_env.images.files import write_atomically
from tools_zoo.training.muon import Muon
from tools_zoo.training.settings import Budget, Schedule

AnyBatch = TypeVar("AnyBatch")
"""What a step is computed from, in whatever form its objective takes."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come, given to the ``report`` callback about twice a second."""

    step: int
    total: int | None
    """Planned steps; None while the rate is being measured."""
    loss: float
    learning_rate: float
    seconds: float
    name: str = ""
    """Of the run, where there are several: a tool's, a round's, a stage's."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The latest validation, by the log's tags, such as ``psnr/output``."""
    unit: str = "steps"
    """What is counted."""


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a run."""

    state: dict[str, Tensor]
    """The averaged (EMA) weights, on the CPU."""
    steps: int
    seconds: float
    finished: bool
    """False if the clock ran out before the last planned step."""


OPTIMIZERS: Mapping[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer]] = MappingProxyType(
    {"adam": torch.optim.Adam, "muon": Muon}
)
"""By what weights may move; the schedule gives the rate of every step."""
CHECKPOINT_SECONDS, REPORT_SECONDS = 20.0, 0.5
_RATE_STEPS = 20  # steps by which the rate is measured, after as many to warm up
_OFF = 0.1  # share of the budget by which a run may end early or late before its end is planned anew


class TrainingError(ImageRestoreError):
    """A run that cannot go on; the message says why and what would help."""


def fit(
    network: nn.Module,
    batch_at: Callable[[int], AnyBatch],
    objective: Callable[[AnyBatch], Tensor],
    budget: Budget,
    schedule: Schedule,
    checkpoint: Path,
    *,
    parts: Sequence[nn.Module] = (),
    speed: Callable[[str], float] = lambda _: 1.0,
    device: str | torch.device = "cpu",
    identity: Mapping[str, Any] = MappingProxyType({}),
    report: Callable[[Progress], None] = lambda _: None,
    workers: int = 1,
) -> TrainingResult:
    """Minimise the objective of ``network`` over the batches, or go on where ``checkpoint`` left off.

    The schedule's optimiser with linear warm-up and cosine decay of its rate, gradients clipped by norm, weights
    averaged exponentially. With ``minutes`` the number of steps is planned from the rate of the first ones and kept in
    the checkpoint; it is planned anew if the machine turns out slower or faster, so that the run ends on the clock, and
    goes on if what slowed it down is over.

    Args:
        network: what to train, its start weights in place.
        batch_at: the batch of a step, a pure function (it runs on ``workers`` threads, some steps ahead).
        objective: the loss of a batch; :func:`restoring` in the simplest case.
        budget: when to stop.
        schedule: how to step.
        checkpoint: file that keeps the run; written every 20 s and at the end, whole or not at all.
        parts: modules whose gradients are clipped each by itself; by default the whole network is one.
        speed: by what the learning rate of a parameter, given by its name, is multiplied.
        device: where to compute.
        identity: what else makes the run what it is (seed, data); kept in the checkpoint, and compared.
        report: called about twice a second.
        workers: threads that make batches.

    Raises:
        TrainingError: the checkpoint is damaged or belongs to a run with another schedule or identity.
    """
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    run = _Run(network, schedule, checkpoint, {**identity, **asdict(schedule)}, speed)
    run.resume(device)
    if run.finished and (budget.steps is None or run.step >= budget.steps):
        return run.result()
    if budget.minutes is not None and run.seconds > (1 + _OFF) * 60 * budget.minutes:
        return run.result()
    run.finished = False
    before, began = run.seconds, time.monotonic()
    marks = deque([(run.step, time.monotonic())], maxlen=_RATE_STEPS + 1)
    reported = saved = 0.0
    saved_step = run.step
    planned = run.total if budget.steps is None else budget.steps
    with _Ahead(batch_at, run.step, workers) as batches:
        while planned is None or run.step < planned:
            rate = run.learning_rate(planned)
            loss = run.descend(batches.next(), objective, rate, parts or [network])
            now = time.monotonic()
            run.seconds = before + now - began
            marks.append((run.step, now))
            pace = (now - marks[0][1]) / max(1, run.step - marks[0][0])
            late = False
            if budget.minutes is not None:
                left = budget.minutes * 60 - run.seconds
                if planned is None and run.step >= 2 * _RATE_STEPS:
                    planned = run.step + max(1, int(left / pace))
                elif planned is not None and (run.step == planned or (saved and now - saved > CHECKPOINT_SECONDS)):
                    if now - saved > CHECKPOINT_SECONDS and saved:
                        pace = (now - saved) / max(1, run.step - saved_step)
                    if abs((planned - run.step) * pace - left) > _OFF * budget.minutes * 60:
                        planned = run.step + max(1, int(left / pace))
                late = left <= -_OFF * budget.minutes * 60
            if now - reported > REPORT_SECONDS or run.step == planned or late:
                reported = now
                report(Progress(run.step, planned, float(loss), rate, run.seconds))
            if late:
                break
            if planned is not None and now - saved > CHECKPOINT_SECONDS:
                saved, saved_step = now, run.step
                run.total = planned
                run.save()
    run.total = planned
    run.finished = planned is not None and run.step >= planned
    run.save()
    return run.result()


class _Run:
    """What a run is made of and what its checkpoint holds."""

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        checkpoint: Path,
        identity: dict[str, Any],
        speed: Callable[[str], float],
    ) -> None:
        self.network, self.schedule, self.checkpoint, self.identity = network, schedule, checkpoint, identity
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(speed(name), []).append(parameter)
        self.speeds = list(groups)
        self.optimizer = OPTIMIZERS[schedule.optimizer]([{"params": group} for group in groups.values()])
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.step = 0
        self.total: int | None = None
        self.seconds = 0.0
        self.finished = False

    def learning_rate(self, total: int | None) -> float:
        warm = min(1.0, (self.step + 1) / self.schedule.warmup_steps)
        decay = 1.0 if total is None else 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / total)))
        return self.schedule.learning_rate * warm * decay

    def descend(
        self,
        batch: AnyBatch,
        objective: Callable[[AnyBatch], Tensor],
        rate: float,
        parts: Sequence[nn.Module],
    ) -> Tensor:
        for group, speed in zip(self.optimizer.param_groups, self.speeds, strict=True):
            group["lr"] = rate * speed
        kind = next(self.network.parameters()).device.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.schedule.precision == "bf16"):
            loss = objective(batch)
        self.optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:  # else nothing was used of what learns
            loss.backward()  # type: ignore[no-untyped-call]
        for part in parts:
            nn.utils.clip_grad_norm_(part.parameters(), self.schedule.clip_norm)
        self.optimizer.step()
        self.step += 1
        decay = min(self.schedule.ema_decay, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
                else:  # a counter
                    self.average[name].copy_(value)
        return loss.detach()

    def save(self) -> None:
        state = {
            "identity": self.identity,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "total": self.total,
            "seconds": self.seconds,
            "finished": self.finished,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.checkpoint, buffer.getvalue())

    def resume(self, device: str | torch.device) -> None:
        if not self.checkpoint.exists():
            return
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            identity = dict(state["identity"])
            if identity == self.identity:
                self.network.load_state_dict(state["network"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.average = {name: value.to(device) for name, value in state["average"].items()}
                self.step, self.total = state["step"], state["total"]
                self.seconds, self.finished = state["seconds"], state["finished"]
        except Exception as error:  # a damaged file makes torch raise nearly anything
            raise TrainingError(
                f"{self.checkpoint}: damaged checkpoint ({type(error).__name__}); delete it to start anew"
            ) from None
        for name in sorted({*identity, *self.identity}):
            if identity.get(name) != self.identity.get(name):
                then, now = (str(values.get(name, "as by default")) for values in (identity, self.identity))
                raise TrainingError(
                    f"{self.checkpoint}: was made with {name} {then}, not {now}: repeat it so, or delete it"
                )

    def result(self) -> TrainingResult:
        state = {name: value.detach().cpu().clone() for name, value in self.average.items()}
        return TrainingResult(state, self.step, self.seconds, self.finished)


class _Ahead(Generic[AnyBatch]):
    """Makes the next batches on threads while the network is busy with this one."""

    def __init__(self, batch_at: Callable[[int], AnyBatch], first: int, workers: int) -> None:
        self._batch_at, self._step = batch_at, first
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="batches")
        self._futures: deque[Future[AnyBatch]] = deque()
        self._depth = 2 * workers

    def __enter__(self) -> _Ahead[AnyBatch]:
        while len(self._futures) < self._depth:
            self._submit()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def next(self) -> AnyBatch:
        self._submit()
        return self._futures.popleft().result()

    def _submit(self) -> None:
        self._futures.append(self._pool.submit(self._batch_at, self._step))
        self._step += 1


def digest(module: nn.Module) -> str:
    """A short name of a module's weights: other weights, another name."""
    hashed = hashlib.sha256()
    for name, value in module.state_dict().items():
        hashed.update(name.encode())
        hashed.update(value.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:12]
