"""A log of scalars in TensorBoard's format."""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILES = itertools.count()


class ScalarLog:
    """Scalars of a run: one event file in a folder, made with the first entry.

    An entry is in the file when :meth:`add` returns; there is no thread and nothing to close. If the folder is deleted
    in the meantime, it is made again.

    Args:
        folder: where the file is written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._event: Any = Event
        self._summary: Any = Summary
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{next(_FILES)}"
        self._path = Path(folder) / name

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Add the values of a step, by their tags.

        Raises:
            OSError: the file cannot be written; the error names it.
        """
        summary = self._summary(value=[self._summary.Value(tag=tag, simple_value=x) for tag, x in values.items()])
        events = [self._event(wall_time=time.time(), step=step, summary=summary)]
        try:
            if not self._path.exists():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                events.insert(0, self._event(wall_time=time.time(), file_version="brain.Event:2"))
            with self._path.open("ab") as file:
                file.write(_records(events))
        except OSError as error:
            raise type(error)(error.errno, error.strerror or str(error), str(self._path)) from None


def _records(events: list[Any]) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = io.BytesIO()
    for event in events:
        RecordWriter(records).write(event.SerializeToString())
    return records.getvalue()
