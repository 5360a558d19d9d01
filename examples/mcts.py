"""Monte-Carlo tree search with ``clone_state`` and ``restore_state`` beats the greedy oracle; both know the rewards.

Run from the checkout: ``python -m examples.mcts --episodes 10``.
"""

import argparse
from typing import Any

import gymnasium as gym
import numpy as np

import restore_env  # noqa: F401  registers the environment
from agents.policies.oracles import GreedyOracle


class Node:
    """A point of an episode with the highest return at or below it: transitions are deterministic, none is averaged."""

    def __init__(self, env: Any, info: dict[str, Any], value: float = 0.0, over: bool = False) -> None:
        self.state, self.value, self.best, self.visits = env.clone_state(), value, value, 1
        self.children: dict[int, Node] = {}
        self.untried = [] if over else np.flatnonzero(info["action_mask"]).tolist()

    def descend(self, exploration: float) -> "list[Node]":
        """The path to a node with untried actions, by upper confidence bounds; empty where all are tried."""
        bound = exploration * np.log(self.visits) ** 0.5
        ahead = sorted(self.children.values(), key=lambda child: -child.best - bound / child.visits**0.5)
        below = [self] if self.untried else next(filter(None, (child.descend(exploration) for child in ahead)), [])
        return below if self.untried or not below else [self, *below]


def search(env: Any, info: dict[str, Any], simulations: int, exploration: float = 0.3) -> list[int]:
    """Return the best chain that was found; ``exploration`` in dB."""
    root, chain = Node(env, info), []
    while root.visits <= simulations and (path := root.descend(exploration)):
        action = path[-1].untried.pop()
        env.restore_state(path[-1].state)
        _, reward, over, _, info = env.step(action)
        path.append(Node(env, info, path[-1].value + reward, over))
        path[-2].children[action] = path[-1]
        for node in path:
            node.visits, node.best = node.visits + 1, max(node.best, path[-1].value)
    env.restore_state((node := root).state)
    while node.best > node.value:
        action, node = max(node.children.items(), key=lambda child: child[1].best)
        chain.append(action)
    return chain


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Play the same episodes by both; return their mean gains in dB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--images", help="folder of photographs (default: those of scikit-image)")
    options = parser.parse_args(arguments)
    env: Any = gym.make("ImageRestore-v0", images=options.images, upscale=(1,), observation=("last_action",)).unwrapped
    gains = np.zeros((options.episodes, 2))
    for episode, gain in enumerate(gains):
        _, info = env.reset(options={"episode_seed": episode})
        gain[1] = sum(env.step(action)[1] for action in search(env, info, options.simulations))
        (observation, _), over = env.reset(options={"episode_seed": episode}), False
        while not over:
            observation, reward, over, *_ = env.step(GreedyOracle.of(env).predict(observation)[0])
            gain[0] += reward
        print("greedy {:+.2f} dB, search {:+.2f} dB".format(*gain))
    return dict(zip(("greedy", "search"), gains.mean(axis=0).tolist(), strict=True))


if __name__ == "__main__":
    print(main())
