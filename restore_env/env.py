"""``ImageRestore-v0``: the single environment."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from restore_env.episodes.batch import EpisodeBatch
from restore_env.episodes.observation import Observation, observation_space
from restore_env.episodes.record import EpisodeRecord
from restore_env.episodes.rendering import EpisodeView, check_display, render_episode
from restore_env.resolve import task_sampler
from restore_env.sampling import EpisodeStart, own_pair
from restore_env.task import Task

_ONLY = np.zeros(1, dtype=np.int64)


def choose_start(rng: np.random.Generator, options: dict[str, Any] | None) -> int | EpisodeStart:
    """Choose how an episode starts, by ``reset``'s options: an ``episode_seed`` to draw it from, or the pair itself.

    Raises:
        ValueError: an unknown option, or only one image of a pair.
    """
    options = options or {}
    unknown = options.keys() - {"degraded", "target", "episode_seed"}
    if unknown:
        raise ValueError(f"unknown reset option {sorted(unknown)[0]!r}: use degraded and target, or episode_seed")
    if "degraded" in options or "target" in options:
        if len(options) != 2 or "episode_seed" in options:
            raise ValueError("a pair of one's own needs both options, degraded and target, and no other")
        return own_pair(options["degraded"], options["target"])
    seed = options.get("episode_seed")
    return int(rng.integers(2**53)) if seed is None else int(seed)


class ImageRestoreEnv(gym.Env[Observation, np.int64]):
    """Restore a distorted image, one tool at a time.

    ## Description
    A patch of a photograph has been blurred, made noisy and compressed, each to an unknown degree, and every other one
    has been shrunk to a quarter of its height and width besides. At every step the agent looks at the working image and
    picks a tool from the toolbox, or stops; it is paid the quality that the tool gained. After Yu et al., "Crafting a
    Toolchain for Image Restoration by Deep Reinforcement Learning", CVPR 2018.

    ## Action Space
    ``Discrete(n + 1)`` for a toolbox of n tools: tool 0 to n - 1, then ``stop``. ``env.unwrapped.toolbox.names`` names
    them. By default 15 actions: 0 to 3 ``deblur_1`` to ``deblur_4``, 4 to 7 ``denoise_1`` to ``denoise_4``, 8 to 11
    ``dejpeg_1`` to ``dejpeg_4``, 12 ``sft_gan`` and 13 ``sed`` (super-resolvers, x4), 14 ``stop``. With
    ``upscale=(1,)`` there are no super-resolvers: 13 actions, 12 is ``stop``.

    ## Observation Space
    A ``Dict``:
    - ``image``: ``Box(0, 255, (63, 63, 3), uint8)``, RGB: the centre of the working image at its own pixel scale. With
      ``dtype="float32"`` the working image exactly as it is, about 0 to 1, neither rounded nor clipped (the box has no
      bounds).
    - ``last_action``: ``Discrete(n + 2)``, the action before this one; n + 1 at the start.
    - ``action_mask``: ``MultiBinary(n + 1)``, 1 where an action is allowed. A super-resolver that would make the image
      larger than its target is not (none in a same-size task, none after the first in a low-resolution one); chosen all
      the same it changes nothing and pays 0.

    ## Rewards
    The metric after the step minus the metric before it: PSNR in dB unless ``reward`` says otherwise, so that an
    episode's return is its total gain; minus ``cost_weight`` times the GMACs that the tool took. ``stop`` pays 0. In a
    low-resolution task the working image is enlarged bicubically for the comparison until a super-resolver has run.
    Textures that a super-resolver invents cost PSNR; ``reward="perceptual"`` pays for them. Its quality is minus the
    distance between the images' features, so that the gain is the distance before minus the distance after.

    ## Starting State
    A random patch of a random photograph at scale 1, 2/3 or 1/3, a random task factor of ``upscale`` and a random
    distortion of the given severity, all drawn from the environment's seed. Before it is distorted, a share
    ``saturation_prob`` of the patches (none by default) is lightened or darkened until a part of it is white or black.
    ``reset(options={"degraded": image, "target": image})`` starts from a pair of your own (paths or arrays, any size
    from a patch on); ``reset(options={"episode_seed": seed})`` repeats the start whose ``info["episode_seed"]`` that
    was.

    ## Episode End
    Terminates after ``stop``, after ``max_steps`` tools, or, with ``stop_if_worse``, when PSNR falls below where it
    began. Never truncates.

    ## Information
    ``psnr``, ``initial_psnr`` (dB), ``toolchain`` (names so far), ``gmacs`` (spent), ``upscale`` (task factor),
    ``image`` (which photograph), ``episode_seed``, ``distortion`` (true levels and place; ``clipped`` where a part was
    made white or black).

    ## Arguments
    The fields of :class:`restore_env.Task`, by name, and ``render_mode``: "rgb_array" (target, current image, the chain
    with its PSNR), "human" (the same in a window).

    ```python
    gym.make("ImageRestore-v0", images="photos/", severity="mild", stop_if_worse=True)
    ```

    ## Version History
    - v0: first version. The super-resolvers, and with them ``upscale=(1, 4)`` and 15 actions by default, came before
      its first release; ``upscale=(1,)`` is the environment before that.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array", "human"], "render_fps": 2}  # type: ignore[misc]

    def __init__(self, images: Any = None, *, render_mode: str | None = None, **arguments: Any) -> None:
        check_render_mode(render_mode, self.metadata["render_modes"])
        self.task = Task(images=images, **arguments)
        self.render_mode = render_mode
        self._episodes: EpisodeBatch = EpisodeBatch(self.task, 1)
        self._sampler = task_sampler(self.task)
        self.toolbox = self._episodes.toolbox
        self.observation_space = observation_space(self.task.patch_size, self.task.dtype, len(self.toolbox))  # type: ignore[assignment]
        self.action_space = spaces.Discrete(len(self.toolbox) + 1)
        self._view: EpisodeView | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; see "Starting State"."""
        super().reset(seed=seed)
        self._episodes.reset(_ONLY, list(self._sampler.starts([choose_start(self.np_random, options)])))
        if self.render_mode is not None:
            self._view = EpisodeView(self._episodes, 0)
            self._show()
        return self._observation(), self._episodes.info(0)

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply a tool, or stop.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or none has begun.
            ValueError: no such action.
        """
        if self._episodes.over[0]:
            raise gym.error.ResetNeeded("the episode is over: call reset()")
        rewards = self._episodes.step(_ONLY, np.array([action]))
        if self._view is not None:
            self._view.update()
            self._show()
        return self._observation(), float(rewards[0]), bool(self._episodes.over[0]), False, self._episodes.info(0)

    @property
    def episodes(self) -> EpisodeBatch:
        """The episode that goes on: what an oracle sees, and an agent must not."""
        return self._episodes

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which actions are allowed, ``(n + 1,)``, by the convention of sb3-contrib's MaskablePPO."""
        return np.asarray(self._episodes.action_mask()[0], dtype=np.bool_)

    def record(self) -> EpisodeRecord:
        """The episode so far as a record that can be saved and replayed."""
        return EpisodeRecord.of(self._episodes, 0)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The episode as a picture, uint8 RGB, in mode "rgb_array"; None in mode "human"."""
        if self._view is None or self.render_mode != "rgb_array":
            return None
        return render_episode(self._view)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._view is not None:
            self._view.close()

    def _observation(self) -> Observation:
        return {key: values[0] for key, values in self._episodes.observe(_ONLY).items()}

    def _show(self) -> None:
        if self.render_mode == "human" and self._view is not None:
            self._view.show(self.metadata["render_fps"])


def check_render_mode(render_mode: str | None, known: list[str]) -> None:
    """Raise ``ValueError`` that lists the render modes, unless it is one of them (and can be shown here) or None."""
    if render_mode is not None and render_mode not in known:
        raise ValueError(f"unknown render_mode {render_mode!r}: choose from {', '.join(known)}")
    if render_mode == "human":
        check_display()
