"""Tools run in parallel, one per core."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from restore_env import ImageRestoreVectorEnv, Toolbox
from restore_env.compute.worker_pool import WorkerPool
from restore_env.episodes.image_batch import ImageBatch, Slots
from restore_env.toolbox import FunctionTool
from tests.support.toolkit import photographs, pixelwise_toolbox
from tools_zoo import load_toolbox


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)


def whoami() -> str:
    time.sleep(0.01)
    return threading.current_thread().name


def late(number: int) -> int:
    time.sleep(0.02 / (number + 1))
    return number


def test_jobs_run_in_parallel_only_within_the_context() -> None:
    pool = WorkerPool()
    here = threading.current_thread().name
    assert list(pool.run([whoami, whoami])) == [here, here]
    with pool.single_threaded():
        assert pool.count == 3
        together = threading.Barrier(3)  # passes only if three wait at once
        assert sorted(pool.run([together.wait] * 3)) == [0, 1, 2]
        assert here not in list(pool.run([whoami, whoami]))
        assert list(pool.run([partial(late, n) for n in range(7)])) == list(range(7))
    assert list(pool.run([whoami, whoami])) == [here, here]


def test_pytorch_has_one_thread_per_job_and_all_threads_afterwards() -> None:
    pool, inner = WorkerPool(), WorkerPool()

    def nested() -> int:  # a job's own jobs run in turn
        with inner.single_threaded():
            return inner.count

    with pool.single_threaded():
        with pool.single_threaded():
            assert list(pool.run([torch.get_num_threads] * 4)) == [1] * 4
        assert list(pool.run([torch.get_num_threads] * 4)) == [1] * 4
        assert list(pool.run([nested] * 2)) == [1, 1]
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(torch.get_num_threads).result() == 3


def test_an_error_of_a_job_reaches_the_caller_and_one_thread_runs_jobs_in_turn() -> None:
    pool = WorkerPool()
    with pytest.raises(ZeroDivisionError), pool.single_threaded():
        list(pool.run([lambda: 1 // 0, torch.get_num_threads]))
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    with pool.single_threaded():
        assert list(pool.run([whoami, whoami])) == [threading.current_thread().name] * 2


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("automatic", [False, True])
def test_jobs_run_in_the_modes_of_their_caller(mode: Any, automatic: bool) -> None:
    pool, weight = WorkerPool(), torch.rand(4, 4, requires_grad=True)

    def product() -> torch.Tensor:
        return weight @ weight

    with mode(), torch.autocast("cpu", torch.bfloat16, enabled=automatic), pool.single_threaded():
        here = product()
        elsewhere = list(pool.run([product] * 3))
    assert here.dtype is (torch.bfloat16 if automatic else torch.float32)
    for each in elsewhere:
        assert (each.dtype, each.requires_grad) == (here.dtype, here.requires_grad)
        assert each.is_inference() is here.is_inference()


def in_two_parts(events: list[str]) -> Iterator[None]:
    """Work to be done while tools run, which records its parts."""
    events.append("first")
    yield
    events.append("rest")


def environment(toolbox: Toolbox, upscale: tuple[int, ...] = (1,)) -> ImageRestoreVectorEnv:
    return ImageRestoreVectorEnv(12, photographs(), patch_size=32, upscale=upscale, toolbox=toolbox)


def assert_the_same_on_one_core(several: ImageRestoreVectorEnv, one: ImageRestoreVectorEnv, tolerance: float) -> None:
    """Play random actions in both, the second on one core; images may differ by a grey level with a tolerance."""
    several.reset(seed=3)
    one.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(6):
        actions = rng.integers(0, len(several.toolbox) + 1, 12)
        ours = several.step(actions)
        torch.set_num_threads(1)
        theirs = one.step(actions)
        torch.set_num_threads(3)
        np.testing.assert_allclose(ours[1], theirs[1], atol=tolerance)
        assert np.abs(ours[0]["image"].astype(int) - theirs[0]["image"]).max() <= (tolerance > 1e-6)
        np.testing.assert_array_equal(ours[2], theirs[2])


def test_the_environment_is_the_same_on_one_core_and_on_several() -> None:
    toolbox = load_toolbox("default")
    assert_the_same_on_one_core(environment(toolbox), environment(toolbox), 1e-4)


def test_upscaled_images_are_stored_after_all_tools_have_run(monkeypatch: pytest.MonkeyPatch) -> None:
    running, during = [0], []
    put = ImageBatch.put

    def watched(batch: ImageBatch, slots: Slots, images: torch.Tensor) -> None:
        during.append(running[0])
        put(batch, slots, images)

    def slowly(tool: FunctionTool) -> FunctionTool:
        def function(images: torch.Tensor) -> torch.Tensor:
            running[0] += 1
            time.sleep(0.002 * len(images))
            running[0] -= 1
            return tool(images)

        return replace(tool, function=function, thread_safe=True)

    monkeypatch.setattr(ImageBatch, "put", watched)
    tools = [slowly(tool) for tool in pixelwise_toolbox(super_resolver=True) if isinstance(tool, FunctionTool)]
    assert {tool.scale for tool in tools} == {1, 4}
    several, one = (environment(Toolbox(tools), upscale=(4,)) for _ in range(2))
    assert_the_same_on_one_core(several, one, 1e-9)
    assert not any(during)  # storing a new size moves images that tools read


@pytest.mark.parametrize("safe", [(False, False), (True, False), (True, True)])
def test_tools_run_in_parallel_if_all_are_thread_safe(safe: tuple[bool, bool]) -> None:
    names: list[str] = []

    def slow(images: torch.Tensor) -> torch.Tensor:
        names.append(whoami())
        return images

    env = environment(
        Toolbox([FunctionTool(name, slow, thread_safe=each) for name, each in zip("ab", safe, strict=True)])
    )
    env.reset(seed=0)
    env.step(np.arange(12) % 2)
    assert (threading.current_thread().name not in names) is all(safe)
    assert (len(set(names)) > 1) is all(safe)


@pytest.mark.parametrize(
    ("thread_safe", "order"), [(False, ["first", "tool", "rest"]), (True, ["first", "rest", "tool"])]
)
def test_other_work_is_started_first_and_done_once(thread_safe: bool, order: list[str]) -> None:
    events: list[str] = []

    def slow(images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.05)
        events.append("tool")
        return images

    env = environment(Toolbox([FunctionTool("slow", slow, thread_safe=thread_safe)]))
    env.reset(seed=0)
    with env.episodes.single_threaded():
        env.episodes.step(np.arange(12), np.zeros(12, dtype=np.int64), in_two_parts(events))
    assert [event for event, _ in itertools.groupby(events)] == order
    assert events.count("first") == events.count("rest") == 1
    env.reset(seed=0)
    events.clear()
    alone = np.full(12, env.toolbox.stop)
    alone[3] = 0
    with env.episodes.single_threaded():  # a tool that runs alone does so on this thread
        env.episodes.step(np.arange(12), alone, in_two_parts(events))
    assert events == ["first", "tool", "rest"]


def test_an_error_in_other_work_leaves_the_episodes_unchanged_and_no_tool_running() -> None:
    ended: list[int] = []

    def slow(images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.03)
        ended.append(len(images))
        return images * 0.5

    def failing() -> Iterator[None]:
        raise ValueError("no start")
        yield

    env = environment(Toolbox([FunctionTool("slow", slow, thread_safe=True)]))
    before, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match="no start"), env.episodes.single_threaded():
        env.episodes.step(np.arange(12), np.zeros(12, dtype=np.int64), failing())
    then = len(ended)
    time.sleep(0.1)
    assert len(ended) == then
    np.testing.assert_array_equal(env.episodes.observe(np.arange(12))["image"], before["image"])
    assert not any(env.episodes.actions)
