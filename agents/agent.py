"""The recurrent agent's network and its weights on disk.

The features of the patch (:mod:`agents.encoders`), joined with the previous action, go into an LSTM, whose output
scores every tool and ``stop``. With the published encoder this is RL-Restore's design, 87,863 parameters with twelve
tools (200 more here: PyTorch's LSTM has a second bias). Source: Yu et al., CVPR 2018, section 3.2 and the published
checkpoint.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agents.encoders import ENCODERS, CompactEncoder, EncoderName
from agents.policy_input import PolicyInput
from restore_env.errors import ImageRestoreError
from restore_env.plain_data import parse_json
from restore_env.policy import takes_single
from restore_env.toolbox import usable_device
from tools_zoo.weight_files import check_shapes, load_state, read_weights, recipe_of, write_weights

Observation = Mapping[str, npt.NDArray[Any]]
"""A batch of the environment's observations: ``image`` (N, P, P, 3) or ``spectrum`` (N, 257), ``last_action`` (N,),
``action_mask`` (N, A)."""
State = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""The LSTM's hidden and cell state, each ``(1, N, hidden)``, as Stable-Baselines3 passes them."""

PATCH_SIZE = 63
MOST_TOOLS = 1000
"""Tools that a policy's file may name."""
TEMPERATURE = 0.2
"""dB, of the softmax that makes a distribution over actions of predicted gains."""


class PolicyError(ImageRestoreError):
    """A policy that cannot be loaded or does not fit; the message says what is wrong, in one line."""


class PatchFeatures(nn.Module):
    """Maps observations to features: the encoded patch, joined with the previous tool as one-hot.

    Args:
        n_tools: tools in the toolbox; the previous action is one-hot over them, all zero at an episode's start.
        encoder: a key of :data:`agents.encoders.ENCODERS`.
    """

    def __init__(self, n_tools: int, encoder: EncoderName = "published") -> None:
        super().__init__()
        self.n_tools, self.encoder = n_tools, encoder
        self.features = ENCODERS[encoder]()
        self.embed = nn.Linear(self.features.width, self.features.embedding_size)
        self.width = self.features.embedding_size + n_tools

    def forward(self, images: Tensor, last_action: Tensor) -> Tensor:
        """Map RGB patches ``(N, 3, 63, 63)`` in [0, 1] and previous actions ``(N,)`` to ``(N, width)``."""
        return self.combine(self.features(images), last_action)

    def combine(self, encoded: Tensor, last_action: Tensor) -> Tensor:
        """Combine encoded patches ``(N, features.width)`` with previous actions: ``(N, width)``."""
        embedded = F.relu(self.embed(encoded))
        previous = F.one_hot(last_action.long(), self.n_tools + 2)[:, : self.n_tools]
        return torch.cat([embedded, previous.to(embedded)], dim=1)


class RecurrentAgent(nn.Module):
    """A recurrent policy that restores without Stable-Baselines3, with its ``predict``.

    Args:
        tools: names of the tools it was trained with, in the order of its actions.
        kind: what the scores are: "logits" of a distribution over actions, or "q" values.
        recipe: how it was trained, as plain numbers and strings.
        encoder: a key of :data:`agents.encoders.ENCODERS`.
    """

    def __init__(
        self,
        tools: tuple[str, ...],
        kind: Literal["logits", "q"] = "logits",
        recipe: Mapping[str, Any] | None = None,
        encoder: EncoderName = "published",
    ) -> None:
        super().__init__()
        self.tools, self.kind, self.recipe = tools, kind, dict(recipe or {})
        self.patch_size = PATCH_SIZE
        self.extractor = PatchFeatures(len(tools), encoder)
        self.hidden = self.extractor.features.hidden
        self.lstm = nn.LSTM(self.extractor.width, self.hidden)
        self.head = nn.Linear(self.hidden, len(tools) + 1)

    @property
    def observation_keys(self) -> tuple[str, ...]:
        """What it observes."""
        return (*self.extractor.features.observes, "last_action", "action_mask")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    def forward(self, images: Tensor, last_action: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """One step: scores ``(N, n_tools + 1)`` and the next LSTM state."""
        return self.step(self.extractor.features(images), last_action, state)

    def step(self, encoded: Tensor, last_action: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """One step from encoded patches ``(N, width)``: scores ``(N, n_tools + 1)`` and the next LSTM state."""
        latent, state = self.lstm(self.extractor.combine(encoded, last_action)[None], state)
        return self.head(latent[0]), state

    def encode(self, observation: Observation) -> Tensor:
        """Encode a batch of observations, of images or compact: ``(N, width)``.

        Raises:
            PolicyError: images of another size than the policy's patches.
        """
        encoder, numbers = self.extractor.features, None
        if isinstance(encoder, CompactEncoder) and "spectrum" in observation:
            numbers = torch.as_tensor(np.asarray(observation["spectrum"])).to(self.device)
            if "image" not in encoder.observes:
                return encoder.forward(None, numbers)
        images = torch.as_tensor(observation["image"]).to(self.device)
        scale = 255 if images.dtype == torch.uint8 else 1
        images = images.permute(0, 3, 1, 2).float().div(scale)
        if images.shape[1:] != (3, self.patch_size, self.patch_size):
            raise PolicyError(
                f"the policy takes {self.patch_size}x{self.patch_size} patches, the observation holds"
                f" {images.shape[3]}x{images.shape[2]}"
            )
        if isinstance(encoder, CompactEncoder):
            return encoder.forward(images, numbers)
        return encoder.forward(images)

    @torch.inference_mode()
    def scores(
        self, observation: Observation, state: State | None = None, episode_start: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.float32], State]:
        """Score every action of a batch of observations.

        Args:
            observation: as the vector environment gives it; uint8 images, or float in [0, 1].
            state: what the last call returned; None at the start.
            episode_start: ``(N,)``, where the state is reset.

        Returns:
            Scores ``(N, n_tools + 1)``, minus infinity where the mask forbids an action, and the next state.
        """
        encoded = self.encode(observation)
        if state is None:
            hidden = cell = torch.zeros(1, len(encoded), self.hidden, device=self.device)
        else:
            hidden, cell = (torch.as_tensor(part).to(self.device) for part in state)
        if episode_start is not None:
            continues = torch.as_tensor(~np.asarray(episode_start, dtype=bool)).to(hidden)[None, :, None]
            hidden, cell = hidden * continues, cell * continues
        last_action = torch.as_tensor(np.asarray(observation["last_action"])).to(self.device)
        scores, (hidden, cell) = self.step(encoded, last_action, (hidden, cell))
        allowed = torch.as_tensor(np.asarray(observation["action_mask"], dtype=bool)).to(self.device)
        scores = scores.masked_fill(~allowed, -torch.inf)
        return scores.float().cpu().numpy(), (hidden.float().cpu().numpy(), cell.float().cpu().numpy())

    @takes_single
    def predict(
        self,
        observation: Observation,
        state: State | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[npt.NDArray[np.int64], State]:
        """Choose an action for each observation, with the signature of Stable-Baselines3's ``predict``.

        Not ``deterministic``: sampled from the distribution (kind "logits" only; torch's global generator).
        """
        scores, state = self.scores(observation, state, episode_start)
        if deterministic or self.kind == "q":
            return scores.argmax(axis=1), state
        drawn = torch.distributions.Categorical(logits=torch.from_numpy(scores)).sample()  # type: ignore[no-untyped-call]
        return drawn.numpy(), state


def with_tools(agent: RecurrentAgent, tools: tuple[str, ...], name: object = "the policy") -> RecurrentAgent:
    """The agent for some of its tools, or for more than its own.

    The scores of its own tools stay as they are; each new tool starts with their average weights.

    Args:
        agent: stays as it is.
        tools: of the new agent, in the order of its actions.
        name: of the agent, for errors.

    Raises:
        PolicyError: neither has the agent all these tools, nor do they include all of its own.
    """
    if tools == agent.tools:
        return agent
    own = set(agent.tools)
    if not (own <= set(tools) or own >= set(tools)):
        check_tools(agent, tools, name)
    other = RecurrentAgent(tools, agent.kind, agent.recipe, agent.extractor.encoder).to(agent.device)
    other.extractor.load_state_dict(agent.extractor.state_dict())
    common = [tool for tool in tools if tool in own]
    theirs, places = ([names.index(tool) for tool in common] for names in (agent.tools, tools))
    width = agent.extractor.embed.out_features
    state = {key: value.clone() for key, value in agent.lstm.state_dict().items()}
    weight = state["weight_ih_l0"]
    state["weight_ih_l0"] = changed = weight.new_zeros(len(weight), other.extractor.width)
    changed[:, :width] = weight[:, :width]
    changed[:, [width + place for place in places]] = weight[:, [width + place for place in theirs]]
    other.lstm.load_state_dict(state)
    with torch.no_grad():
        for parameter, before in zip(other.head.parameters(), agent.head.parameters(), strict=True):
            parameter.copy_(before[:-1].mean(dim=0, keepdim=True).expand_as(parameter))
            parameter[places], parameter[-1] = before[theirs], before[-1]
    return other.eval().requires_grad_(False)


SHIPPED = Path(__file__).parent / "weights"
"""The folder of the policies that come with the package."""
DEFAULT = "default"
"""The shipped policy for the default tools and the super-resolvers."""


def policy_names() -> list[str]:
    """Names of the shipped policies."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def load_policy(
    name_or_path: str | os.PathLike[str] = DEFAULT,
    device: str | torch.device = "cpu",
    tools: Sequence[str] | None = None,
) -> RecurrentAgent:
    """Load a policy by its shipped name or from a safetensors file that training or import wrote.

    Args:
        name_or_path: the default one plays ``gym.make("ImageRestore-v0")``.
        device: where it runs.
        tools: those that it shall choose from, all or some of its own; None: all of its own.

    Raises:
        PolicyError: no such policy, a file that is damaged or of another architecture, or other tools than its own; the
            message says which.
        ValueError: a device that cannot be used.
    """
    device = usable_device(device)
    path = SHIPPED / f"{name_or_path}.safetensors" if str(name_or_path) in policy_names() else Path(name_or_path)
    if path.is_dir():
        path = path / "agent.safetensors"
    if not path.is_file():
        raise PolicyError(
            f"{name_or_path}: no policy; expected one of {', '.join(policy_names())}, or a safetensors file"
        )
    state, metadata = read_weights(path, PolicyError)
    own = parse_json(metadata.get("tools", "null"), f"{path}: its header's tools", PolicyError)
    encoder = cast(EncoderName, metadata.get("encoder", "published"))
    for name, is_valid in (
        ("tools", isinstance(own, list) and len({*map(str, own)}) == len(own) <= MOST_TOOLS),
        ("kind", metadata.get("kind") in ("q", "logits")),
        ("encoder", encoder in ENCODERS),
    ):
        if not is_valid:
            raise PolicyError(f"{path}: not a policy (its header has no valid {name!r})")
    state = {_inside(key): value for key, value in state.items()}
    kind: Literal["logits", "q"] = "q" if metadata["kind"] == "q" else "logits"
    make = partial(RecurrentAgent, tuple(map(str, own)), kind, recipe_of(metadata, path, PolicyError), encoder)
    with torch.device("meta"):  # what the header says takes no memory before the weights agree
        check_shapes(make(), state, path, "the policy", PolicyError)
    agent = make()
    load_state(agent, state, path, "the policy", PolicyError)
    try:
        PolicyInput.of(agent)
    except ValueError as error:
        raise PolicyError(f"{path}: its recipe: {error}") from None
    agent.eval().requires_grad_(False)
    if tools is not None and set(tools) <= set(agent.tools):
        agent = with_tools(agent, tuple(tools))
    elif tools is not None:
        check_tools(agent, tuple(tools), name_or_path)
    return agent.to(device)


def check_tools(agent: Any, tools: tuple[str, ...], name: object = "the policy") -> None:
    """Raise PolicyError if the agent was trained with other tools than these."""
    own = getattr(agent, "tools", None)
    if own is not None and tuple(own) != tools:
        raise PolicyError(
            f"{name} was trained with the tools {', '.join(own)}; the toolbox has {', '.join(tools)}: choose a policy"
            " and a toolbox that belong together"
        )


def check_recipe(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise PolicyError if a training that goes on from ``path`` was started with other settings."""
    for name, value in now.items():
        if before.get(name) != value:
            raise PolicyError(f"{path}: was made with {name} {before.get(name)}, not {value}; delete it to start anew")


def policy_of(toolbox: Any) -> str | Path:
    """Find the policy of a toolbox (a name, a folder, or anything): of its name, in its folder, or else the default."""
    folder = Path(toolbox) if isinstance(toolbox, (str, os.PathLike)) and toolbox != DEFAULT else None
    if folder is not None and isinstance(toolbox, str) and toolbox in policy_names():
        return toolbox
    if folder is not None and (folder / "agent.safetensors").is_file():
        return folder / "agent.safetensors"
    if folder is not None and folder.is_dir():
        warnings.warn(
            f"{toolbox} has no agent of its own (agent.safetensors): using {DEFAULT!r}, trained with the default tools;"
            " imagerestore train agent trains one",
            stacklevel=2,
        )
    return DEFAULT


def save_policy(agent: RecurrentAgent, path: str | os.PathLike[str]) -> None:
    """Write a policy as safetensors; the file appears whole or not at all."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "kind": agent.kind,
        "encoder": agent.extractor.encoder,
        "tools": json.dumps(agent.tools),
        "patch_size": str(agent.patch_size),
        "recipe": json.dumps(agent.recipe),
    }
    write_weights(path, {_outside(key): value for key, value in agent.state_dict().items()}, metadata)


def _outside(key: str) -> str:
    """A tensor's name in a file: without the name of the module that holds the extractor."""
    return key.removeprefix("extractor.")


def _inside(key: str) -> str:
    return f"extractor.{key}" if key.startswith(("features.", "embed.")) else key
