"""The recurrent agent: its weights on disk, its input, and more tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.agent import PolicyError, RecurrentAgent, load_policy, save_policy, with_tools
from agents.encoders import ENCODERS
from tools_zoo.weight_files import read_weights, write_weights


def observation(n: int, actions: int, last_action: int) -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 256, (n, 63, 63, 3), dtype=np.uint8)
    return {"image": images, "last_action": np.full(n, last_action), "action_mask": np.ones((n, actions), np.int8)}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_agent_with_tools_keeps_the_scores_of_the_old_ones(encoder: Any) -> None:
    torch.manual_seed(0)
    agent = RecurrentAgent(("b", "a"), encoder=encoder).eval()
    larger = with_tools(agent, ("a", "new", "b", "newer"))
    assert larger.tools == ("a", "new", "b", "newer")
    state = other = None
    for last, theirs in ((3, 5), (0, 2), (1, 0)):  # none yet, b, a
        scores, state = agent.scores(observation(4, 3, last), state)
        more, other = larger.scores(observation(4, 5, theirs), other)
        np.testing.assert_allclose(more[:, [2, 0, 4]], scores, atol=1e-5)
        np.testing.assert_allclose(more[:, [1, 3]], scores[:, :2].mean(axis=1, keepdims=True).repeat(2, 1), atol=1e-5)
    fewer = with_tools(larger, ("newer", "a"))
    (scores, state), (less, other) = larger.scores(observation(4, 5, 5)), fewer.scores(observation(4, 3, 3))
    np.testing.assert_allclose(less, scores[:, [3, 0, 4]], atol=1e-5)
    scores, less = larger.scores(observation(4, 5, 3), state)[0], fewer.scores(observation(4, 3, 0), other)[0]
    np.testing.assert_allclose(less, scores[:, [3, 0, 4]], atol=1e-5)
    with pytest.raises(PolicyError, match="trained with the tools b, a; the toolbox has a, c"):
        with_tools(agent, ("a", "c"))


def test_a_patch_of_another_size_is_refused() -> None:
    observation = {
        "image": np.zeros((1, 40, 40, 3), np.uint8),
        "last_action": np.array([3]),
        "action_mask": np.ones((1, 3)),
    }
    with pytest.raises(PolicyError, match="63x63"):
        RecurrentAgent(("a", "b")).predict(observation)


DEEP = "[" * 10**5 + "]" * 10**5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoder": "infrared"}, r"not a policy .*encoder"),
        ({"kind": "a\nb"}, r"not a policy .*kind"),
        (
            {"tools": json.dumps([str(number) for number in range(900)])},
            "the policy has head.bias .901,., the file has .3",
        ),
        ({"tools": '["a", "a"]'}, r"not a policy .*tools"),
        ({"tools": DEEP}, "nested deeper"),
        ({"recipe": DEEP}, "nested deeper"),
        ({"recipe": "[]"}, r"its recipe is \[\]"),
        ({"recipe": '{"earlier": "x"}'}, "earlier 'x'"),
        ({"recipe": '{"steps": "x"}'}, "steps 'x'"),
        ({"recipe": '{"decide": ["x"]}'}, "decide must be"),
    ],
)
def test_a_policy_with_another_header_is_refused(changes: dict[str, str], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    save_policy(RecurrentAgent(("a", "b")), path)
    state, metadata = read_weights(path, PolicyError)
    write_weights(path, dict(state), {**metadata, **changes})
    with pytest.raises(PolicyError, match=rf"\A.*agent\.safetensors: .*{reason}.*\Z"):
        load_policy(path)
