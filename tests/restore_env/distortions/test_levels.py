"""Levels and severities: which strengths are drawn, and how often."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore_env.distortions.mixed import draw_distortion
from restore_env.distortions.protocol import (
    BLUR_EDGES,
    JPEG_EDGES,
    NOISE_EDGES,
    SEVERITIES,
    Levels,
    check_severity,
    draw_levels,
    level_triples,
)


@pytest.mark.parametrize(("severity", "count"), [("mild", 163), ("moderate", 434), ("severe", 163)])
def test_number_of_level_combinations(severity: str, count: int) -> None:
    triples = level_triples(*SEVERITIES[severity])
    assert len(triples) == len({tuple(triple) for triple in triples}) == count
    assert triples.min() >= 1
    assert triples.max() <= 10


def levels_of(value: float, edges: tuple[float, ...]) -> set[int]:
    """The levels, 1..10, that a value may belong to: two if it lies on the edge between them."""
    pairs = itertools.pairwise(edges)
    return {level for level, pair in enumerate(pairs, start=1) if min(pair) <= value <= max(pair)}


@given(st.sampled_from(sorted(SEVERITIES)), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_drawn_levels_belong_to_their_severity(severity: str, seed: int) -> None:
    levels = draw_levels(severity, np.random.default_rng(seed))
    blur = levels_of(levels.blur_sigma, BLUR_EDGES)
    noise = levels_of(levels.noise_sigma, NOISE_EDGES)
    compression = levels_of(levels.jpeg_quality, JPEG_EDGES)
    lowest, highest = SEVERITIES[severity]
    assert any(lowest <= sum(triple) - 2 <= highest for triple in itertools.product(blur, noise, compression))
    assert isinstance(levels.jpeg_quality, int)


def test_draws_are_uniform_over_the_combinations_and_within_a_level() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_levels("moderate", rng) for _ in range(8000)]
    triples = level_triples(*SEVERITIES["moderate"])
    sigmas = np.array([levels.blur_sigma for levels in drawn])
    expected = np.bincount(triples[:, 0], minlength=11)[1:] / len(triples)
    counted = np.histogram(sigmas, BLUR_EDGES)[0] / len(drawn)
    np.testing.assert_allclose(counted, expected, atol=0.02)  # about four standard deviations
    within = np.sort(sigmas % 0.5) / 0.5
    steps = np.arange(1, len(within) + 1) / len(within)
    assert np.abs(within - steps).max() < 0.02  # Kolmogorov-Smirnov: p = 0.003


def test_strengths_count_levels() -> None:
    for level, edges in enumerate(zip(BLUR_EDGES, NOISE_EDGES, JPEG_EDGES, strict=True)):
        assert Levels(*edges[:2], int(edges[2])).strengths == pytest.approx((level, level, level))
    assert Levels().strengths == (0, 0, 0)  # no JPEG, not one of quality 0


@pytest.mark.parametrize(
    "severity",
    ["extreme", "13-12", "0", "29-40", "12-", "-12", "12-13-14", "1_2", "\u0661\u0662", "12,", ",", "12,x"],
)
@pytest.mark.parametrize("call", [check_severity, lambda name: draw_levels(name, np.random.default_rng(0))])
def test_an_unknown_severity_is_refused_with_the_known_ones(call: Callable[[str], object], severity: str) -> None:
    known = "choose from mild, moderate, severe, light, any, single, mixed, .*clean, .*; or a number from 1 to 28 or"
    with pytest.raises(ValueError, match=f"'{severity}': {known}"):
        call(severity)


def test_a_severity_in_numbers_is_the_sum_of_the_levels_minus_two() -> None:
    drawn = {name: draw_levels(name, np.random.default_rng(5)) for name in ("12-17", "moderate", "1", "28")}
    assert drawn["12-17"] == drawn["moderate"]
    assert max(drawn["1"].strengths) <= 1
    assert min(drawn["28"].strengths) >= 9
    sums = [sum(draw_levels("12-13", np.random.default_rng(seed)).strengths) for seed in range(200)]
    assert 11 <= min(sums) < max(sums) <= 15  # a level's strengths lie within 1 below it


def test_either_of_two_severities_is_drawn_equally_often() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_distortion("single+severe+clean", rng).strengths for _ in range(900)]
    parts = np.bincount([sum(value > 0 for value in strengths) for strengths in drawn], minlength=4) / 900
    assert parts == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3], abs=0.05)
    assert check_severity("mixed+12-13") == "mixed+12-13"
    with pytest.raises(ValueError, match="unknown severity 'harsh'"):
        check_severity("mixed+harsh")


def test_several_severities_are_each_drawn_as_often_as_they_are_named() -> None:
    sums = [sum(draw_levels("1,28,28", np.random.default_rng(seed)).strengths) for seed in range(200)]
    strong = [total for total in sums if total >= 27]
    assert all(total <= 3 for total in sums if total not in strong)
    assert 100 < len(strong) < 165  # two in three, but for chance
    ends = {draw_levels("moderate,single", np.random.default_rng(seed)).noise_sigma > 0 for seed in range(100)}
    assert ends == {True, False}


@given(st.integers(0, 2**32))
def test_single_and_light_distortions(seed: int) -> None:
    single, light = (draw_levels(name, np.random.default_rng(seed)) for name in ("single", "light"))
    assert sum(value > 0 for value in single.as_dict().values()) == 1
    assert max(single.strengths) <= 10  # JPEG of quality 100 is of strength 0
    assert sum(value > 0 for value in light.as_dict().values()) >= 2
    assert sum(np.ceil(light.strengths)) - 2 < SEVERITIES["mild"][0]


@pytest.mark.parametrize("severity", ["light", "any"])
def test_mixtures_beyond_the_protocol_are_of_two_distortions_or_three(severity: str) -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_levels(severity, rng) for _ in range(400)]
    missing = {tuple(value == 0 for value in levels.as_dict().values()) for levels in drawn}
    assert missing == {(False,) * 3, (True, False, False), (False, True, False), (False, False, True)}
    if severity == "any":  # two distortions as often as three, light to severe
        assert np.mean([min(levels.strengths) == 0 for levels in drawn]) == pytest.approx(0.5, abs=0.09)
        sums = [sum(np.ceil(levels.strengths)) - 2 for levels in drawn]
        assert min(sums) < SEVERITIES["mild"][0]
        assert SEVERITIES["severe"][0] <= max(sums) <= SEVERITIES["severe"][1]
