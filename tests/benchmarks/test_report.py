"""Intervals, facts about the machine, peak memory."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from agents.intervals import Estimate, estimate, ratio
from agents.policies.heuristics import FixedChain
from agents.rollout import EpisodeResults
from benchmarks.compare.method import Method
from benchmarks.compare.results import Results
from benchmarks.compare.tables import lines_of
from benchmarks.report.machine import environment, peak_memory
from tests.support.toolkit import pixelwise_toolbox


class TestIntervals:
    def test_photographs_are_drawn_not_patches(self) -> None:
        """Patches that only repeat their photograph say nothing new."""
        rng = np.random.default_rng(0)
        photos = rng.normal(size=20)
        names = [str(index) for index in range(20)]
        one = estimate((photos, names))
        many = estimate((np.repeat(photos, 50), list(np.repeat(names, 50))))
        assert [many.mean, many.low, many.high] == pytest.approx([one.mean, one.low, one.high])
        assert one.low < one.mean < one.high
        assert (one.high - one.low) / 2 == pytest.approx(1.96 * photos.std() / np.sqrt(20), rel=0.15)

    def test_a_comparison_pairs_each_patch_with_itself(self) -> None:
        psnr, images = np.random.default_rng(0).normal(25, 5, 8), tuple("aabbccdd")
        rows = []
        for name, values in (("one", psnr), ("other", psnr + 0.1)):
            played = EpisodeResults(psnr, values, values - psnr, np.ones(8), ((0,),) * 8, images=images)
            rows.append(Results(Method(name, name, FixedChain((), 1), pixelwise_toolbox(), 0), {"mild": played}))
        against = lines_of(rows, "mild", "one")[1].against["psnr"]
        assert (against.low, against.mean, against.high) == pytest.approx((0.1, 0.1, 0.1))

    def test_sets_count_the_same(self) -> None:
        both = estimate((np.array([1.0, 1.0, 1.0]), ["a", "b", "a"]), (np.array([3.0]), ["b"]))
        assert both == Estimate(2.0, 2.0, 2.0)

    def test_the_patches_of_one_photograph_are_drawn_instead(self) -> None:
        alone = estimate((np.array([1.0, 3.0]), ["a", "a"]))
        assert alone == Estimate(2.0, 1.0, 3.0)

    def test_a_ratio_is_one_of_sums(self) -> None:
        rng = np.random.default_rng(0)
        of, names = rng.uniform(1, 5, 60), [str(index // 3) for index in range(60)]
        assert ratio(of / 4, of, names) == Estimate(0.25, 0.25, 0.25)
        assert ratio(of, np.ones(60), names) == estimate((of, names))

    def test_mistakes_are_named(self) -> None:
        with pytest.raises(ValueError, match="no values"):
            estimate((np.array([]), []))
        with pytest.raises(ValueError, match="3 values cannot belong to 2 photographs"):
            estimate((np.ones(3), ["a", "b"]))


def test_the_machine_is_described_and_memory_measured() -> None:
    facts = json.loads(json.dumps(environment()))
    assert facts["packages"]["torch"] == torch.__version__
    total, peak = peak_memory(lambda: float(torch.ones(64, 2**18).sum()))
    assert total == 2**24
    if peak is not None:  # on Linux
        assert 60 < peak < 100
