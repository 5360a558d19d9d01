"""What a run's weights come to on the way: measured now and then, kept as TensorBoard logs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools_zoo.training.trainer import Progress

NOTHING: Mapping[str, float] = MappingProxyType({})


def summary_writer(folder: str | os.PathLike[str]):  # type: ignore[no-untyped-def]
    """Open a TensorBoard log; imported where it is used, for it takes seconds."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


class RunLog:
    """Measures a run's weights at its beginning, every so often and at its end, and logs that; for ``with``.

    Args:
        folder: of the log.
        measure: what the weights come to now, by the log's tags.
        seconds: from one measurement to the next.
        extra_tasks: what is logged with it, the same each time: the input's PSNR, say.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        measure: Callable[[], Mapping[str, float]],
        seconds: float,
        constants: Mapping[str, float] = NOTHING,
    ) -> None:
        self._writer = summary_writer(folder)
        self._measure, self._seconds, self._constants = measure, seconds, constants
        self._at = -float("inf")
        self._latest: Mapping[str, float] = NOTHING

    def note(self, progress: Progress) -> Mapping[str, float]:
        """Measure and log, if it is time; return what was measured last, by tag."""
        if progress.seconds - self._at >= self._seconds or progress.step == progress.total:
            self._at = progress.seconds
            self._latest = self._measure()
            loss = {"train/loss": progress.loss, "train/learning_rate": progress.learning_rate}
            for tag, value in {**self._latest, **self._constants, **loss}.items():
                self._writer.add_scalar(tag, value, progress.step)
        return self._latest

    def __enter__(self) -> RunLog:
        """Return the log."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the log."""
        self._writer.close()
