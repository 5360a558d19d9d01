"""The environment ``ImageRestore-v0``."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from restore_env.episodes.forking import Forkable
from restore_env.episodes.record import EpisodeRecord
from restore_env.episodes.rendering import EpisodeView, check_display, has_display, render_episode
from restore_env.sampling import EpisodeStart, own_pair
from restore_env.task import Task

_SLOT = np.zeros(1, dtype=np.int64)


def choose_start(rng: np.random.Generator, options: dict[str, Any] | None) -> int | EpisodeStart:
    """Read the options of ``reset``: return the seed that an episode is drawn from, or the user's pair.

    Raises:
        ValueError: an unknown option, only one image of a pair, or an episode seed that is none.
    """
    options = options or {}
    unknown = options.keys() - {"distorted", "target", "episode_seed"}
    if unknown:
        raise ValueError(f"unknown reset option {sorted(unknown)[0]!r}: use distorted and target, or episode_seed")
    if "distorted" in options or "target" in options:
        if len(options) != 2 or "episode_seed" in options:
            raise ValueError("a pair needs both options, distorted and target, and no other")
        return own_pair(options["distorted"], options["target"])
    seed = options.get("episode_seed")
    if seed is None:
        return int(rng.integers(2**53))
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"episode_seed must be a whole number of 0 or more, got {seed!r}")
    return int(seed)


class ImageRestoreEnv(Forkable, gym.Env[Any, np.int64]):
    """Restore a distorted image, one tool at a time.

    ## Description
    A patch of a photograph has been blurred, made noisy and compressed as JPEG, each to an unknown degree. In half of
    the episodes it has also been reduced to a quarter of its height and width. At each step the agent observes the
    working image and chooses a tool that is applied to it, or stops; the reward is the quality that the tool gained.
    Source: Yu et al., "Crafting a Toolchain for Image Restoration by Deep Reinforcement Learning", CVPR 2018.

    ## Action Space
    ``Discrete(n + 1)`` for a toolbox of n tools: tools 0 to n - 1, then ``stop``. ``env.unwrapped.toolbox.names`` lists
    their names. By default 15 actions: 0 to 3 ``deblur_1`` to ``deblur_4``, 4 to 7 ``denoise_1`` to ``denoise_4``, 8 to
    11 ``dejpeg_1`` to ``dejpeg_4``, 12 ``sft_gan`` and 13 ``sed`` (super-resolvers, x4), 14 ``stop``. With
    ``upscale=(1,)`` there are no super-resolvers: 13 actions, 12 is ``stop``.

    ## Observation Space
    A ``Dict``:
    - ``image``: ``Box(0, 255, (63, 63, 3), uint8)``, RGB: the centre patch of the working image, without scaling. With
      ``dtype="float32"`` the exact values, about 0 to 1, neither rounded nor clipped (the box has no bounds).
    - ``last_action``: ``Discrete(n + 2)``, the previous action; n + 1 at the start.
    - ``action_mask``: ``MultiBinary(n + 1)``, 1 where an action is allowed. A super-resolver is forbidden if its result
      would be larger than the target: always in same-size tasks, and after the first one in low-resolution tasks. A
      forbidden action changes nothing and its reward is 0.
    - ``steps_left``: ``Discrete(max_steps + 1)``, how many actions remain.

    With ``observation="spectrum"`` there is no ``image`` but ``spectrum``, ``Box((257,), float32)``: statistics of the
    patch's spectrum and colours (:mod:`restore_env.episodes.spectrum`), enough for policies without convolutions; with
    "both" there are both. ``flatten=True`` makes one ``Box`` of the spectrum, the previous action one-hot, the mask and
    the steps left. A list of keys selects some: ``observation=("spectrum", "steps_left")``. ``observation=("image",)``
    with ``flatten=True`` is the image alone, as wrappers and policies for images take it.

    ## Rewards
    The metric after the step minus the metric before it, minus ``cost_weight`` times the tool's GMACs. The metric is
    PSNR in dB unless ``reward`` names another; an episode's return is its total gain. The reward of ``stop`` is 0. In
    low-resolution tasks the working image is upscaled bicubically for the comparison until a super-resolver has run.
    Textures that a super-resolver invents lower PSNR; ``reward="perceptual"`` rewards them: its metric is minus the
    distance between the images' features.

    ## Starting State
    A random patch of a random photograph at scale 1, 2/3 or 1/3, a random upscale factor from ``upscale`` and a random
    distortion of the given severity, all drawn from the environment's seed. With probability ``saturation_prob`` (0 by
    default) the photograph is first lightened or darkened until a part of the patch is white or black.
    ``reset(options={"distorted": image, "target": image})`` starts from a pair of your own (paths or arrays, a patch or
    larger); ``reset(options={"episode_seed": seed})`` repeats the start that had this ``info["episode_seed"]``.

    ## Episode End
    Terminates after ``stop``, after ``max_steps`` tools, or, with ``stop_if_worse``, when PSNR falls below its value at
    the start. Never truncates.

    ## Information
    Numbers and arrays of fixed shape: ``psnr``, ``initial_psnr`` (dB), ``toolchain`` (``(max_steps,)``, the actions so
    far, then -1), ``gmacs`` (computation so far), ``upscale`` (the task's upscale factor), ``photograph`` (its number),
    ``episode_seed``, ``action_mask``. ``env.unwrapped.describe()`` gives the rest, and with ``info="full"`` infos hold
    it, too: ``tools`` (names of the actions so far), ``photograph_name``, and ``distortion`` (true levels and place in
    the photograph; ``saturated`` where a part was made white or black).

    ## Forks
    ``state = env.unwrapped.clone_state()`` and ``env.unwrapped.restore_state(state)`` go back to a point of an episode;
    ``copy.deepcopy(env)`` makes a second environment with the same future. Environments can be pickled.

    ## Arguments
    The fields of :class:`restore_env.Task`, and ``render_mode``: "rgb_array" (a picture of target, current image and
    the toolchain with its PSNR) or "human" (the same in a window).

    ```python
    gym.make("ImageRestore-v0", images="photos/", severity="mild", stop_if_worse=True)
    ```

    ## Variants
    Registered with other arguments (:data:`restore_env.IDS`): ``ImageRestoreSameSize-v0``, ``ImageRestoreLowRes-v0``,
    ``ImageRestorePerceptual-v0`` (low resolution, perceptual reward), ``ImageRestorePriced-v0`` (same size, computation
    has a price) and ``ImageRestoreRegions-v0`` (same size, distortions that vary in space). Benchmarks on level sets
    that come with the package: ``ImageRestoreMixedTrain-v0`` and ``ImageRestoreMixedTest-v0``,
    ``ImageRestorePureTrain-v0`` and ``ImageRestorePureTest-v0``.

    ## Version History
    - v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array", *(["human"] if has_display() else [])],
        "render_fps": 2,
    }

    GENERATORS: ClassVar[str] = "_np_random"

    def __init__(self, images: Any = None, *, render_mode: str | None = None, **arguments: Any) -> None:
        check_render_mode(render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self._open(Task(images=images, **arguments), 1)
        self.observation_space = self._episodes.observation_space
        self.action_space = spaces.Discrete(self._episodes.n_actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: of the environment's generator.
            options: a pair or an episode seed, see "Starting State".

        Raises:
            ValueError: options that do not fit.
        """
        super().reset(seed=seed)
        self._episodes.reset(_SLOT, list(self._sampler.starts([choose_start(self.np_random, options)])))
        if self.render_mode is not None:
            self._views = [EpisodeView(self._episodes, 0)]
            self._show()
        return self._observation(), self._episodes.info(0)

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Apply a tool, or stop.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or none has been started.
            ValueError: an action that does not exist, or more than one.
            ToolError: a tool or the reward failed; the episode is as before the step.
        """
        if self._episodes.over[0]:
            raise gym.error.ResetNeeded("the episode is over: call reset()")
        if np.ndim(action) != 0:
            raise ValueError(f"expected one whole number as the action, got {action!r}: pass its only item")
        rewards = self._episodes.step(_SLOT, np.array([action]))
        for view in self._views:
            if view is not None:
                view.update()
                self._show()
        return self._observation(), float(rewards[0]), bool(self._episodes.over[0]), False, self._episodes.info(0)

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which actions are allowed, ``(n + 1,)``, by the convention of sb3-contrib's MaskablePPO."""
        return np.asarray(self._episodes.action_mask()[0], dtype=np.bool_)

    def describe(self) -> dict[str, Any]:
        """Names of the actions so far (``tools``), ``photograph_name``, and the true levels of the ``distortion``."""
        return self._episodes.describe(0)

    def record(self) -> EpisodeRecord:
        """The episode so far as a record that can be saved and replayed."""
        return EpisodeRecord.of(self._episodes, 0)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The episode as a picture, uint8 RGB, in mode "rgb_array"; None in mode "human"."""
        (view,) = self._views
        return None if view is None or self.render_mode != "rgb_array" else render_episode(view)

    def close(self) -> None:
        """Close the window, if there is one."""
        for view in self._views:
            if view is not None:
                view.close()

    def _observation(self) -> Any:
        observed = self._episodes.observations(_SLOT)
        return observed[0] if self.task.flatten else {key: values[0] for key, values in observed.items()}

    def _show(self) -> None:
        (view,) = self._views
        if self.render_mode == "human" and view is not None:
            view.show(self.metadata["render_fps"])


def check_render_mode(render_mode: str | None, known: list[str]) -> None:
    """Raise ``ValueError`` unless the render mode is None or a known one that works on this machine."""
    if render_mode == "human":
        check_display()
    if render_mode is not None and render_mode not in known:
        raise ValueError(f"unknown render_mode {render_mode!r}: choose from {', '.join(known)}")
