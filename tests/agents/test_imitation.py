"""Encoders and imitation learning on level sets."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agents.agent import PolicyError, RecurrentAgent, load_policy, save_policy
from agents.encoders import ENCODERS, CompactEncoder, EncoderName
from agents.imitation.demonstrations import SPREAD, Demonstrations, check_alike, split_by_photograph
from agents.imitation.imitation import (
    ImitationTraining,
    batch_of,
    loss,
    lower_predictions,
    returns,
    scores_of,
    train_imitation,
    with_own_choice,
)
from agents.policy_input import PolicyInput
from agents.rollout import draw_starts, play
from restore_env.distortions.protocol import gaussian_blur, gaussian_noise, jpeg, quantize
from restore_env.episodes.batch import EpisodeBatch
from restore_env.episodes.spectrum import COMPACT_SIZE, chroma_spectrum, compact_codes, decoded, spectrum
from restore_env.levels.building import build_levels
from restore_env.levels.optima import optima
from restore_env.levels.store import LevelError, LevelSet, open_levels
from restore_env.resolve import task_sampler
from restore_env.task import Task
from restore_env.toolbox import FunctionTool, Toolbox
from tests.support.toolkit import photographs, pixelwise_toolbox

NAMES = ("brighten", "dim", "invert")
every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


def patches(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def a_task(**arguments: Any) -> Task:
    chosen = {"images": photographs(), "toolbox": pixelwise_toolbox(super_resolver=True), "severity": "any"}
    return Task(**{**chosen, **arguments})


def built(folder: Path, count: int = 12, *, depth: int = 2, **arguments: Any) -> LevelSet:
    task = a_task(**arguments)
    return build_levels(
        task, folder, count=count, depth=depth, pixels=True, last_observed=False, beyond=True, portable=False
    )


def demonstrations(levels: LevelSet, cost_weight: float = 0.0) -> Demonstrations:
    return Demonstrations(levels, np.arange(len(levels)), cost_weight)


def test_the_spectrum_separates_blur_noise_and_jpeg() -> None:
    squares = np.random.default_rng(1).integers(0, 2, (32, 32, 1)).repeat(2, axis=0).repeat(2, axis=1).repeat(3, axis=2)
    texture = (100 + 40 * squares[:63, :63]).astype(np.uint8)
    image = texture.astype(np.float32) / np.float32(255)
    blurred = quantize(gaussian_blur(image, 3.0))
    noised = quantize(gaussian_noise(image, 30.0, np.random.default_rng(0)))
    mean, deviation, missing = spectrum(patches(texture, blurred, noised, jpeg(noised, 10))).chunk(3, dim=1)
    high = torch.arange(64).reshape(8, 8)[4:, 4:].flatten()
    usual, blur, noise, compressed = missing[:, high].mean(1)
    assert blur > usual > noise
    assert compressed > noise + 0.2
    assert mean[2, high].mean() > mean[0, high].mean() > mean[1, high].mean()
    assert deviation[3, high].mean() > deviation[2, high].mean()  # some windows have lost them, others not


def test_normalization_is_saved_with_the_weights_and_deviations_are_clamped(tmp_path: Path) -> None:
    images = torch.randint(256, (100, 3, 63, 63), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    numbers = torch.from_numpy(decoded(compact_codes(images)))
    agent = RecurrentAgent(NAMES, encoder="compact").eval()
    network = agent.extractor.features
    assert isinstance(network, CompactEncoder)
    network.normalize_by(numbers)
    normalized = (numbers - network.number_mean) / network.number_std
    torch.testing.assert_close(normalized.mean(0), torch.zeros(COMPACT_SIZE), atol=1e-2, rtol=0)
    assert normalized.std(0).max() < 1.01
    save_policy(agent, tmp_path / "agent.safetensors")
    kept = load_policy(tmp_path / "agent.safetensors")
    assert kept.extractor.encoder == "compact"
    with torch.no_grad():
        own, white = network(images.float() / 255), network(torch.ones(1, 3, 63, 63))
        torch.testing.assert_close(kept.extractor.features(images.float() / 255), own, atol=0, rtol=0)
        network.number_mean.sub_(100)
        farther = network(torch.ones(1, 3, 63, 63))
        network.number_mean.sub_(100)
        torch.testing.assert_close(network(torch.ones(1, 3, 63, 63)), farther)
        assert not torch.equal(white, farther)


def test_half_precision_leaves_the_spectrum_as_it_is() -> None:
    images = patches(photographs(1, 63, 63)[0])
    with torch.autocast("cpu", torch.bfloat16):
        half = spectrum(images)
    assert torch.equal(half, spectrum(images))


def test_the_chroma_spectrum_tells_coloured_noise_from_grey_noise() -> None:
    rng, grey = np.random.default_rng(0), np.full((63, 63, 3), 128.0)
    noise = rng.normal(0, 20, (63, 63, 3))
    coloured, mono = grey + noise - noise.mean(axis=2, keepdims=True), grey + noise[..., :1]
    means = chroma_spectrum(patches(*(image.clip(0, 255).astype(np.uint8) for image in (coloured, mono))))[:, :15]
    assert (means[0] > means[1] + 1).all()


def test_gains_and_values_are_those_of_playing(tmp_path: Path) -> None:
    levels = built(tmp_path, upscale=(1, 4))
    known, score = demonstrations(levels), levels.score
    assert (known.gains.shape, known.states) == ((12, 5, 4), 5)
    assert np.allclose(known.gains[:, 0, 1], score[:, 2] - score[:, 0], atol=1e-5, equal_nan=True)
    assert np.allclose(known.gains[:, 3, 0], score[:, 3 * 4 + 1] - score[:, 3], atol=1e-5, equal_nan=True)
    best = optima(levels, 2).best_return
    assert np.allclose(np.maximum(np.nanmax(known.values[:, 0], axis=1), 0), best, atol=1e-5)
    forbidden = np.isnan(known.gains[:, 0, 3])
    assert np.array_equal(forbidden, levels.arrays["upscale"] == 1)


def test_the_price_of_computation_lowers_the_gains(tmp_path: Path) -> None:
    tools = [replace(tool, macs_per_pixel=1e5) for tool in pixelwise_toolbox()]  # type: ignore[type-var]
    levels = built(tmp_path, toolbox=tools, upscale=(1,))
    free, priced = demonstrations(levels).gains, demonstrations(levels, 2.0).gains
    assert np.allclose(free - priced, 2.0 * 1e5 * 63 * 63 / 1e9, atol=1e-4)


def test_validation_levels_come_from_other_photographs(tmp_path: Path) -> None:
    levels = built(tmp_path, 30, upscale=(1,), images=photographs(4))
    train, held_out = split_by_photograph(levels, 4)
    shown = levels.arrays["photograph"]
    assert len(train) + len(held_out) == 30
    assert set(shown[train.rows]).isdisjoint(shown[held_out.rows])
    everything, again = split_by_photograph(levels, 100)
    assert len(everything) == len(again) == 30


def test_a_photograph_is_held_out_from_every_set_that_has_it(tmp_path: Path) -> None:
    for name, count in (("few", 4), ("many", 8)):
        (tmp_path / name).mkdir()
        for number, photo in list(enumerate(photographs(count)))[::-1]:
            Image.fromarray(photo).save(tmp_path / name / f"park{number}{7 * number}.png")
    kept = []
    for name in ("few", "many"):
        levels = built(tmp_path / f"{name}-set", 100, upscale=(1,), images=tmp_path / name, depth=1)
        _, held_out = split_by_photograph(levels, 3)
        paths = np.array([Path(each).name for each in levels.manifest.photographs])
        kept.append(set(paths[levels.arrays["photograph"][held_out.rows]]))
    assert kept[0]
    assert kept[0] == {name for name in kept[1] if int(name[4]) < 4}


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_photographs_may_have_names_that_are_no_text(tmp_path: Path) -> None:
    for number, photo in enumerate(photographs(2)):
        Image.fromarray(photo).save(tmp_path / "photo.png")
        (tmp_path / "photo.png").rename(tmp_path / f"\udcff{number}.png")
    levels = built(tmp_path / "set", 4, upscale=(1,), images=tmp_path, depth=1)
    assert len(levels) == 4
    assert sum(map(len, split_by_photograph(open_levels(levels.path), 2))) >= 4


@every_encoder
@pytest.mark.parametrize("kind", ["q", "logits"])
def test_the_scores_of_a_tree_are_those_of_playing(tmp_path: Path, encoder: EncoderName, kind: Any) -> None:
    levels = built(tmp_path, 6, upscale=(1, 4))
    torch.manual_seed(0)
    agent = RecurrentAgent(tuple(levels.manifest.tools), kind, encoder=encoder)
    agent.head.bias.data[-1] = -1.0  # prefers tools
    agent.eval().requires_grad_(False)
    part = demonstrations(levels)
    found = returns(agent, part)
    task = a_task(upscale=(1, 4), max_steps=2, observation=agent.observation_keys)
    starts = list(task_sampler(task).starts(levels.arrays["seed"].tolist()))
    played = play(agent, task, starts)
    assert np.allclose(played.returns, found, atol=1e-4)
    scores = scores_of(agent, batch_of(agent, part, np.arange(6))).numpy()
    assert scores.shape == (6, 6, 5)
    episodes, state, slots = EpisodeBatch(replace(task, max_steps=3), 6), None, np.arange(6)
    episodes.reset(slots, starts)
    chains = np.array([levels.tree.chains[number] for number in part.best_chains])
    for step, place in enumerate((np.zeros(6, int), 1 + chains[:, 0], np.full(6, 5))):
        own, state = agent.scores(episodes.observe(slots), state)
        assert np.allclose(scores[slots, place][np.isfinite(own)], own[np.isfinite(own)], atol=1e-5)
        if step == 2:
            gains, allowed = episodes.one_step_rewards(slots)[:, :-1], episodes.action_mask()[:, :-1]
            assert np.allclose(part.beyond_gains, np.where(allowed, gains, np.nan), atol=1e-4, equal_nan=True)
        else:
            episodes.step(slots, chains[:, step])


def test_a_batch_of_images_has_the_states_that_matter(tmp_path: Path) -> None:
    part = demonstrations(built(tmp_path, 12, upscale=(1, 4)))
    chosen, rng = np.arange(12), np.random.default_rng(0)
    assert np.array_equal(part.tools_after_start(chosen, 2, None), np.tile(np.arange(4), (12, 1)))
    tools = np.stack([part.tools_after_start(chosen, 2, rng) for _ in range(50)])
    assert tools.shape == (50, 12, 2)
    assert (tools[..., 0] != tools[..., 1]).all()
    best = np.array([part.levels.tree.chains[number][0] for number in part.best_chains])
    assert (tools == best[:, None]).any(axis=2).all()
    values = np.nan_to_num(part.values[:, 0], nan=-100)
    for level in chosen:
        others = [tool for tool in np.argsort(-values[level]) if tool != best[level]]
        often = [(tools[:, level] == tool).any(axis=1).mean() for tool in others]
        assert often[0] >= often[-1]


def test_the_scores_of_sampled_states_are_those_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.imitation.imitation.SAMPLED_TOOLS", 2)
    part = demonstrations(built(tmp_path, 6, upscale=(1, 4)))
    torch.manual_seed(0)
    agent = RecurrentAgent(tuple(part.levels.manifest.tools), "q", encoder="published").eval().requires_grad_(False)
    chosen = np.arange(6)
    gumbel = np.random.default_rng(0).gumbel
    rng = SimpleNamespace(random=lambda: 1.0, choice=lambda *_: np.array([1, 1]), gumbel=gumbel)
    some, every = batch_of(agent, part, chosen, rng), batch_of(agent, part, chosen)  # type: ignore[arg-type]
    assert some.tools.shape == (6, 2)
    states = torch.cat([torch.zeros(6, 1, dtype=torch.long), 1 + some.tools, torch.full((6, 1), 5)], dim=1)
    rows = torch.arange(6)[:, None]
    assert torch.equal(some.values.nan_to_num(9), every.values[rows, states].nan_to_num(9))
    torch.testing.assert_close(scores_of(agent, some), scores_of(agent, every)[rows, states])


def test_values_at_the_start_are_those_of_the_agents_own_chains(tmp_path: Path) -> None:
    part = demonstrations(built(tmp_path, 6, upscale=(1,), toolbox=pixelwise_toolbox()))
    torch.manual_seed(0)
    agent = RecurrentAgent(NAMES, "q", encoder="compact").eval().requires_grad_(False)
    batch = batch_of(agent, part, np.arange(6))
    scores = scores_of(agent, batch)
    scores[:, 1:4, 3] = 0.3
    own, score = with_own_choice(batch, scores), torch.tensor(part.levels.score)
    for tool in range(3):
        then = scores[:, 1 + tool].argmax(1)
        node = torch.where(then < 3, (1 + tool) * 3 + 1 + then, 1 + tool)
        torch.testing.assert_close(own[:, 0, tool], (score[torch.arange(6), node] - score[:, 0]).float())
    assert torch.equal(own[:, 1:], batch.values[:, 1:])


def test_a_compact_agent_chooses_alike_from_images_and_from_numbers() -> None:
    torch.manual_seed(0)
    agent = RecurrentAgent(NAMES, "q", encoder="compact").eval().requires_grad_(False)
    task = a_task(toolbox=pixelwise_toolbox(), upscale=(1,), observation="both")
    starts = draw_starts(task, 4, 0)
    episodes = EpisodeBatch(task, 4)
    episodes.reset(np.arange(4), starts)
    observed = episodes.observe(np.arange(4))
    numbers, _ = agent.scores(observed)
    images, _ = agent.scores({key: value for key, value in observed.items() if key != "spectrum"})
    assert np.allclose(numbers, images, atol=1e-6)


def test_small_rewards_teach_as_much_as_large_ones(tmp_path: Path) -> None:
    levels = built(tmp_path, upscale=(1,), toolbox=pixelwise_toolbox(), reward="tests.support.toolkit:softened")
    part = demonstrations(levels)
    assert part.unit == pytest.approx(np.nanmean(np.nanstd(part.gains, axis=2)) / SPREAD)
    agent = RecurrentAgent(NAMES, "logits")
    batch = batch_of(agent, part, np.arange(12))
    scaled = [(factor, batch._replace(values=batch.values * factor)) for factor in (1.0, 1e-3)]
    losses = [loss(agent, part.unit * factor, each) for factor, each in scaled]
    torch.testing.assert_close(*losses)


def settings(folder: Path, *sets: Path, **arguments: Any) -> ImitationTraining:
    chosen: dict[str, Any] = {"steps": 40, "batch_size": 16, "warmup_steps": 5}
    return ImitationTraining(out=folder, levels=tuple(map(str, sets)), **{**chosen, **arguments})


def test_the_normalization_of_a_trained_agent_stays(tmp_path: Path) -> None:
    levels = built(tmp_path / "levels", 8, upscale=(1,))
    for trained in (True, False):
        agent = RecurrentAgent(tuple(levels.manifest.tools), "q", encoder="compact")
        network = agent.extractor.features
        assert isinstance(network, CompactEncoder)
        before = network.number_mean.clone()
        train_imitation(settings(tmp_path / str(trained), tmp_path / "levels", steps=2), agent=agent, trained=trained)
        assert torch.equal(network.number_mean, before) == trained


def test_another_encoder_than_that_of_the_start_is_refused(tmp_path: Path) -> None:
    levels = built(tmp_path / "levels", 4, upscale=(1,), depth=1)
    save_policy(
        RecurrentAgent(tuple(levels.manifest.tools), "logits", encoder="compact"), tmp_path / "init.safetensors"
    )
    chosen = settings(tmp_path / "out", tmp_path / "levels", steps=1, init=str(tmp_path / "init.safetensors"))
    for asked, name in (
        (replace(chosen, encoder="combined"), "encoder combined"),
        (replace(chosen, agent_kind="q"), "agent_kind q"),
    ):
        with pytest.raises(PolicyError, match=f"leave out {name}"):
            train_imitation(asked)
    agent, _ = train_imitation(chosen)
    assert (agent.kind, agent.recipe["encoder"], agent.recipe["agent_kind"]) == ("logits", "compact", "logits")


def test_predictions_are_lowered_where_that_gains(tmp_path: Path) -> None:
    """An agent that expects 0.25 dB of a tool that makes images worse calls it until predictions are lowered."""
    part = demonstrations(built(tmp_path, 8, upscale=(1,), depth=1))
    agent = RecurrentAgent(tuple(part.levels.manifest.tools), "q", encoder="compact").eval().requires_grad_(False)
    agent.head.weight.zero_()
    agent.head.bias[:] = torch.tensor([0.1, 0.25, 0.1, 0.1, 0.0])
    constant = part.gains[:, 0, 1].mean()
    assert constant < 0
    assert returns(agent, part).mean() == pytest.approx(constant, abs=1e-5)
    assert lower_predictions(agent, [part]) == 0.3
    assert returns(agent, part).mean() == 0
    assert agent.head.bias.tolist() == pytest.approx([-0.2, -0.05, -0.2, -0.2, 0.0])


def test_only_predicted_decibels_decide(tmp_path: Path) -> None:
    for reward, decide in (("psnr", "values"), ("ssim", "votes")):
        built(tmp_path / reward, 4, upscale=(1,), reward=reward)
        agent, _ = train_imitation(settings(tmp_path / f"{reward}-agent", tmp_path / reward, steps=2))
        assert PolicyInput.of(agent).decide == decide


@pytest.mark.parametrize("encoder", ["compact", "combined"])
def test_imitation_learns_the_best_tool(tmp_path: Path, encoder: EncoderName) -> None:
    """Of bright photographs one tool is the best, of dark ones another."""
    shades = [np.full((80, 80, 3), 60 + 130 * (number % 2), np.uint8) for number in range(8)]
    tools = Toolbox(
        [
            FunctionTool("lift", lambda images: (images + 0.02 * (images < 0.5)).clamp(0, 1) + 0.1 * (images > 0.5)),
            FunctionTool("lower", lambda images: images - 0.02 * (images > 0.5) - 0.1 * (images < 0.5)),
        ]
    )
    levels = build_levels(
        Task(images=shades, toolbox=tools, upscale=(1,), distortion="tests.support.toolkit:inverted"),
        tmp_path / "levels",
        count=32,
        depth=1,
        pixels=True,
        portable=False,
    )
    agent, gain = train_imitation(settings(tmp_path / "out", tmp_path / "levels", encoder=encoder, steps=150))
    assert gain == pytest.approx(optima(levels, 1).best_return.mean(), abs=0.02)
    assert agent.recipe["share_output"] > 0.9
    again, same = train_imitation(settings(tmp_path / "out", tmp_path / "levels", encoder=encoder, steps=150))
    assert same == gain
    assert torch.equal(again.head.weight, agent.head.weight)


def test_sets_that_differ_are_refused(tmp_path: Path) -> None:
    first = built(tmp_path / "a", 4, upscale=(1,))
    built(tmp_path / "b", 4, upscale=(1,), toolbox=pixelwise_toolbox())
    with pytest.raises(LevelError, match="has tools"):
        check_alike([first, open_levels(tmp_path / "b")])
    with pytest.raises(ValueError, match="name one or more level sets"):
        settings(tmp_path / "out")
    packed = tmp_path / "spectra.levels"
    build_levels(a_task(upscale=(1,)), tmp_path / "c", count=4, depth=1, last_observed=False, portable=False).pack(
        packed
    )
    with pytest.raises(LevelError, match="holds no image"):
        train_imitation(settings(tmp_path / "out", packed, encoder="published"))
