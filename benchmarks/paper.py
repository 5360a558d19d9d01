"""What RL-Restore's paper and OWAN's report, next to which tables here are put.

Sources: Yu et al., CVPR 2018; Suganuma et al., CVPR 2019. PSNR is that of 63x63 patches of DIV2K.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from benchmarks.baselines.table import BASELINES, PATCH_PIXELS, Published

RL_RESTORE = "published"
"""What :data:`benchmarks.methods.METHODS` calls the authors' toolbox and agent."""
TITLES: Mapping[str, str] = MappingProxyType(
    {name: BASELINES[name].title for name in ("vdsr", "vdsr_s", "dncnn", "owan")} | {RL_RESTORE: "RL-Restore"}
)
"""The papers' methods by the names that they have here."""
PSNR: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "vdsr": {"mild": 28.04, "moderate": 26.40, "severe": 24.90},
        "vdsr_s": {"mild": 27.69, "moderate": 25.99, "severe": 24.50},
        "dncnn": {"mild": 28.03, "moderate": 26.42, "severe": 24.99},
        RL_RESTORE: {"mild": 28.04, "moderate": 26.45, "severe": 25.20},
        "owan": {"mild": 28.33, "moderate": 27.07, "severe": 25.88},
    }
)
"""dB by method and severity."""
CHAIN = Published(196e3, 0.47, PATCH_PIXELS, 3, "Yu et al., CVPR 2018, table 3")
"""RL-Restore's mean chain with its agent: what runs for a patch, not all that is loaded."""
