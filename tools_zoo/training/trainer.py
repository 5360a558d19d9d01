"""Gradient descent by a budget: resumable to the bit, with EMA, live progress and an end on the clock.

Every batch, and all that is random in a step, is a function of the step's number, so nothing but the networks, the
optimizer and that number has to be kept: a run that was killed and resumed equals one that was not.
:func:`train_network` is what every training of a network calls: tools, joint training, super-resolution, prior and
baselines. Several processes can share the batches of a run (:mod:`tools_zoo.training.distributed`).
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from restore_env.compute.interruption import deferred_signals
from restore_env.errors import ImageRestoreError
from restore_env.extras import require_extra
from restore_env.images.files import write_atomically
from tools_zoo.training import distributed
from tools_zoo.training.cards import source_version
from tools_zoo.training.curves import draw_run
from tools_zoo.training.muon import Muon
from tools_zoo.training.runs import Validation
from tools_zoo.training.scalar_log import ScalarLog
from tools_zoo.training.settings import Budget, NetworkTraining, recipe
from tools_zoo.weight_files import load_checkpoint

AnyBatch = TypeVar("AnyBatch")
"""What a step is computed from, in whatever form its objective takes."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come, given to the ``report`` callback about twice a second."""

    step: int
    total: int
    """Steps of the whole run; an estimate where the budget is in minutes."""
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


OPTIMIZERS: Mapping[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer]] = MappingProxyType(
    {"adam": torch.optim.Adam, "adamw": partial(torch.optim.AdamW, weight_decay=0.05), "muon": Muon}
)
"""The optimizers by name; the learning rate is set at every step."""
CHECKPOINT_SECONDS, REPORT_SECONDS = 20.0, 0.5


Report = Callable[[Progress], None]
"""Called about twice a second."""


class TrainingError(ImageRestoreError):
    """A run that cannot go on; the message says why and what would help."""


def train_network(
    settings: NetworkTraining,
    name: str,
    network: nn.Module,
    batch_at: Callable[[int], AnyBatch],
    objective: Callable[[AnyBatch], Tensor],
    validation: Validation,
    *,
    parts: Sequence[nn.Module] = (),
    speed: Callable[[str], float] = lambda _: 1.0,
    identity: Mapping[str, Any] = MappingProxyType({}),
    report: Report = lambda _: None,
) -> tuple[TrainingResult, dict[str, Any]]:
    """Minimise the objective of a network over the batches, or go on where ``settings.out`` left off.

    The optimizer's rate rises linearly, then decays as a cosine; gradients are clipped by norm; weights are averaged
    exponentially, and the network is left with the averages. The rate follows the share of the budget that is used, of
    its steps or of its minutes. The checkpoint (written every 20 s and at the end), the learning curves and the log lie
    in ``out/checkpoints`` and ``out/logs`` under the run's name.

    Args:
        settings: budget, learning rate and the rest; all recorded fields are part of the checkpoint's identity and of
            the recipe.
        name: of the run, such as the tool's.
        network: its start weights in place.
        batch_at: the batch of a step, a pure function (it runs on ``settings.workers`` threads, some steps ahead).
        objective: the loss of a batch; :func:`tools_zoo.training.losses.restoring` in the simplest case.
        validation: what is measured on the way.
        parts: modules whose gradients are clipped each by itself; by default the whole network is one.
        speed: by what the learning rate of a parameter, given by its name, is multiplied.
        identity: what else makes the run what it is, such as a digest of its start weights.
        report: called about twice a second, with the run's name and the latest measurement.

    Returns:
        What training gave, and the recipe: settings, identity, steps, seconds and the last measurement, each tag
        ``psnr/output`` as ``psnr_output``.

    Raises:
        TrainingError: the checkpoint is damaged or belongs to another run.
        ProcessError: several processes train, and the batch cannot be shared by them, or one of them has ended.
        MissingExtraError: a package of the extra ``train`` is not installed.
    """
    require_extra("train", "training")
    distributed.check_batch(settings.batch_size)
    logs, checkpoint = settings.out / "logs" / name, settings.out / "checkpoints" / f"{name}.pt"
    recorded = {**recipe(settings), "learning_rate": settings.highest_rate, **identity}
    compared = {key: value for key, value in recorded.items() if key != "command"}
    measured: Mapping[str, float] = {}
    due = 0.0

    def note(now: Progress) -> None:
        nonlocal measured, due
        if now.seconds >= due or now.step == now.total:
            due = now.seconds + validation.seconds
            measured = {**validation.measure(), **validation.constants}
            loss = {"train/loss": now.loss, "train/learning_rate": now.learning_rate}
            log.add({**measured, **loss}, now.step)
        report(replace(now, name=name, metrics=measured))

    network = network.to(settings.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    distributed.synchronise(network)
    log = ScalarLog(logs)
    run = _Run(network, settings, checkpoint, compared, speed)
    run.fit(settings.budget, batch_at, objective, parts or [network], note)
    distributed.by_first(lambda: draw_run(checkpoint.with_suffix(".png"), logs, validation.curves, validation.label))
    state = {key: value.cpu() for key, value in run.average.items()}
    result = TrainingResult(state, run.step, run.seconds)
    network.load_state_dict(result.state)
    measured = {**validation.constants, **distributed.by_first(validation.measure)}
    outcome = {"steps": result.steps, "seconds": round(result.seconds, 1)}
    outcome |= {"processes": distributed.count()} if distributed.count() > 1 else {}
    outcome |= {tag.replace("/", "_"): round(value, 4) for tag, value in measured.items()}
    return result, {**recorded, **outcome, "version": source_version()}


class _Run:
    """What a run is made of and what its checkpoint holds."""

    def __init__(
        self,
        network: nn.Module,
        settings: NetworkTraining,
        checkpoint: Path,
        identity: dict[str, Any],
        speed: Callable[[str], float],
    ) -> None:
        self.network, self.settings, self.checkpoint, self.identity = network, settings, checkpoint, identity
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(speed(name), []).append(parameter)
        self.speeds = list(groups)
        self.optimizer = OPTIMIZERS[settings.optimizer]([{"params": group} for group in groups.values()])
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.step, self.seconds = 0, 0.0

    def fit(
        self,
        budget: Budget,
        batch_at: Callable[[int], AnyBatch],
        objective: Callable[[AnyBatch], Tensor],
        parts: Sequence[nn.Module],
        note: Report,
    ) -> None:
        """Step until the budget is used up, from where the checkpoint left off."""
        self._resume()
        before, began = self.seconds, time.monotonic()
        saved, reported = began, -math.inf
        share = budget.share(self.step, self.seconds)
        batches_ahead = distributed.parts(partial(_ahead, batch_at, self.settings.workers), self.step)
        with deferred_signals() as interruption, closing(batches_ahead) as batches:
            while share < 1:
                rate = self._learning_rate(share)
                loss = self._descend(next(batches), objective, rate, parts)
                now = time.monotonic()
                self.seconds, stops = distributed.agreed(before + now - began, interruption.requested)
                share = budget.share(self.step, self.seconds)
                if distributed.is_first() and (now - reported > REPORT_SECONDS or share >= 1):
                    reported = now
                    total = budget.steps or max(self.step, round(self.step / share))
                    note(Progress(self.step, total, float(loss), rate, self.seconds))
                if now - saved > CHECKPOINT_SECONDS or stops:
                    saved = now
                    self._save()
                    interruption.go_on()
            self._save()

    def _learning_rate(self, share: float) -> float:
        warm = min(1.0, (self.step + 1) / self.settings.warmup_steps)
        return self.settings.highest_rate * warm * 0.5 * (1 + math.cos(math.pi * share))

    def _descend(
        self, batch: AnyBatch, objective: Callable[[AnyBatch], Tensor], rate: float, parts: Sequence[nn.Module]
    ) -> Tensor:
        for group, speed in zip(self.optimizer.param_groups, self.speeds, strict=True):
            group["lr"] = rate * speed
        torch.manual_seed(int(np.random.SeedSequence([self.settings.seed, self.step]).generate_state(1, np.uint64)[0]))
        kind = next(self.network.parameters()).device.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.settings.precision == "bf16"):
            loss = objective(batch)
        self.optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:  # else nothing was used of what learns
            loss.backward()  # type: ignore[no-untyped-call]
        loss = distributed.average_gradients(self.network, loss.detach())
        for part in parts:
            nn.utils.clip_grad_norm_(part.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.step += 1
        decay = min(self.settings.ema_decay, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
                else:  # a counter
                    self.average[name].copy_(value)
        return loss

    def _save(self) -> None:
        if not distributed.is_first():
            return
        state = {
            "identity": self.identity,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.checkpoint, buffer.getvalue())

    def _resume(self) -> None:
        state = distributed.by_first(self._checkpoint)
        try:
            if state is not None:
                self.network.load_state_dict(state["network"])
                self.optimizer.load_state_dict(state["optimizer"])
                for name, value in state["average"].items():
                    self.average[name].copy_(value)
                self.step, self.seconds = state["step"], state["seconds"]
        except Exception as error:
            raise self._damaged(error) from None

    def _checkpoint(self) -> dict[str, Any] | None:
        """What the checkpoint holds, if there is one; it is of this run."""
        if not self.checkpoint.exists():
            return None
        try:
            state: dict[str, Any] = load_checkpoint(self.checkpoint)
            identity = dict(state["identity"])
        except Exception as error:
            raise self._damaged(error) from None
        for name in sorted({*identity, *self.identity}):
            if identity.get(name) != self.identity.get(name):
                then, now = (str(values.get(name, "as by default")) for values in (identity, self.identity))
                raise TrainingError(
                    f"{self.checkpoint}: was made with {name} {then}, not {now}: repeat it so, or delete it"
                )
        return state

    def _damaged(self, error: Exception) -> TrainingError:
        """A damaged file makes torch raise nearly anything."""
        return TrainingError(f"{self.checkpoint}: damaged checkpoint ({type(error).__name__}); delete it to start anew")


def _ahead(batch_at: Callable[[int], AnyBatch], workers: int, steps: Iterable[int]) -> Generator[AnyBatch, None, None]:
    """The batches of steps, made on threads while the network is busy with earlier ones."""
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="batches")
    try:
        steps = iter(steps)
        futures = deque(pool.submit(batch_at, step) for step in itertools.islice(steps, 2 * workers))
        for step in steps:
            futures.append(pool.submit(batch_at, step))
            yield futures.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def digest(module: nn.Module) -> str:
    """A short name of a module's weights: other weights, another name."""
    hashed = hashlib.sha256()
    for name, value in module.state_dict().items():
        hashed.update(name.encode())
        hashed.update(value.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:12]
