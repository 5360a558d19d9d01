"""Facts about the machine, and peak memory."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import platform
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from tools_zoo.training.cards import source_version

Result = TypeVar("Result")
_PACKAGES = ("torch", "numpy", "opencv-python-headless", "albumentations", "scikit-image")
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def environment(device: str = "cpu") -> dict[str, Any]:
    """What numbers depend on: versions, processor, threads, device, time."""
    return {
        "version": source_version(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def machine_fingerprint(device: str | torch.device = "cpu") -> str:
    """A hash of what times depend on: the device, the processor and the number of threads."""
    facts = environment(str(device))
    facts_text = "|".join(str(facts[name]) for name in ("device", "processor", "threads", "cpu_capability"))
    return hashlib.sha256(facts_text.encode()).hexdigest()[:8]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def peak_memory(run: Callable[[], Result], device: str | torch.device = "cpu") -> tuple[Result, float | None]:
    """What ``run`` returns, and the peak of additional memory, MiB: of the GPU or the process (None but on Linux)."""
    device = torch.device(device)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = run()
        return result, (torch.cuda.max_memory_allocated(device) - before) / 2**20
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)  # return freed memory to the system: the C library would use it again, which would not count
    try:
        _CLEAR.write_text(_RESET_PEAK)
        resident = _status("VmRSS")
    except (OSError, KeyError):
        return run(), None
    return run(), max(0.0, _status("VmHWM") - resident)


def _status(field: str) -> float:
    """An entry of the process's status, MiB."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return float(lines[field].split()[0]) / 2**10
