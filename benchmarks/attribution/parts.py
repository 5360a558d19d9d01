"""The parts of the attribution: each measures patches and gives a section of the report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.agent import RecurrentAgent
from agents.intervals import Estimate, estimate
from agents.policies.heuristics import FixedChain, RandomPolicy
from agents.policy_input import PolicyInput
from agents.rollout import EpisodeResults, play
from benchmarks.attribution.choice import DEPTH, Chain, Explorer, Patches, PatchSets, without_stop
from benchmarks.attribution.policies import AblatedPolicy, ChainOfEach
from benchmarks.attribution.tables import CLEARLY_DB, HEADS, Line, frequency, named, ranged
from benchmarks.attribution.unseen import UNSEEN
from benchmarks.report.publishing import markdown_table
from restore_env.policy import Policy
from restore_env.task import MAX_STEPS

METRICS: Mapping[str, tuple[str, int]] = MappingProxyType(
    {"psnr": ("PSNR, dB", 2), "ssim": ("SSIM", 4), "perceptual": ("perceptual quality", 4)}
)
"""The metrics of the evaluation: their title, and digits after the point."""


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    explorer: Explorer
    severity: str
    toolboxes: Mapping[str, str]
    """Shipped names or folders by title, for the part ``toolboxes``."""
    toolbox: str
    """Shipped name or folder, for the other parts."""
    agents: Mapping[str, RecurrentAgent]
    """Of each toolbox."""
    seed: int

    @property
    def sets(self) -> PatchSets:
        """The patches of ``toolbox``."""
        return self.explorer.sets(self.toolbox, severity=self.severity)


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    text: Sequence[str]
    """Lines of Markdown."""
    record: Any
    """The same as plain numbers."""


def run_agent(agent: RecurrentAgent, patches: Patches, removed: Sequence[int] = ()) -> EpisodeResults:
    """Let an agent restore patches, without some of the tools."""
    task = replace(patches.task, dtype=PolicyInput.of(agent).observe)
    return play(AblatedPolicy(agent, removed=removed) if removed else agent, task, patches.starts)


def run_chains(chains: Sequence[Chain], patches: Patches) -> EpisodeResults:
    """Run a chain on each patch."""
    of_seed = {start.seed: chain for start, chain in zip(patches.starts, chains, strict=True)}
    return run(ChainOfEach(of_seed, patches.toolbox.stop), patches)


def run(policy: Policy, patches: Patches) -> EpisodeResults:
    """Let a policy that needs no image restore patches."""
    return play(policy, replace(patches.task, observation=("last_action", "action_mask")), patches.starts)


def compare_policies(setting: Setting, toolbox: str, sets: PatchSets) -> list[Line]:
    """The agent and what bounds it, on the same patches."""
    measured, choice = sets.measured, sets.choice()
    agent, stop = setting.agents[toolbox], measured.toolbox.stop
    run_agent(agent, replace(measured, starts=measured.starts[:1]))  # what is done once only is not timed
    played = {
        "agent": run_agent(agent, measured),
        "constant chain": run(FixedChain(choice.constant, stop), measured),
        "random": run(RandomPolicy(setting.seed), measured),
        "greedy oracle": run_chains(measured.greedy_chains, measured),
        "best chain": run_chains(choice.best, measured),
    }
    return [Line.of(name, results, choice, stop) for name, results in played.items()]


def attribute_toolboxes(setting: Setting) -> Section:
    """Every toolbox with its agent."""
    rows, record, constants = [], {}, []
    for name, toolbox in setting.toolboxes.items():
        note(f"toolbox {name}")
        sets = setting.explorer.sets(toolbox, severity=setting.severity)
        lines = compare_policies(setting, toolbox, sets)
        constant = named(sets.choice().constant, sets.measured.toolbox)
        rows += [[name, line.name, *line.cells()] for line in lines]
        constants.append(f"{name}: {constant}")
        record[name] = {"constant": constant, "lines": [asdict(line) for line in lines]}
    text = markdown_table(["toolbox", "policy", "gain, dB", *HEADS], rows, left=2)
    return Section("Toolboxes", [*text, "", f"Constant chains: {'; '.join(constants)}."], record)


def attribute_kinds(setting: Setting) -> Section:
    """Each kind of distortion of a severity that has several, with the best constant chain of that kind."""
    measured, other = setting.sets.measured, setting.sets.other
    played = run_agent(setting.agents[setting.toolbox], measured)
    agent, best, found = played.returns, measured.optima.best_return, other.optima.returns
    kinds, others = (np.array(patches.kinds(setting.severity)) for patches in (measured, other))
    of_all = int(found.mean(axis=0).argmax())
    chains, constant = measured.levels.tree.chains, np.empty(len(kinds))
    rows, record = [], []

    def add(name: str, here: npt.NDArray[np.bool_], chain: str) -> None:
        worth = float(best[here].mean() - constant[here].mean())
        share = float(agent[here].mean() - constant[here].mean()) / worth if worth > 0.005 else float("nan")
        worse = float((agent[here] < -CLEARLY_DB).mean())
        means = [float(values[here].mean()) for values in (constant, agent, best)]
        shown = "" if np.isnan(share) else f"{share:.0%}"
        rows.append([name, str(here.sum()), chain, *(f"{mean:+.2f}" for mean in means), shown, f"{worse:.1%}"])
        record.append({"kind": name, "patches": int(here.sum()), "means": means, "share": share, "worse": worse})

    for kind in sorted(set(kinds)):
        alike = others == kind
        number = int(found[alike].mean(axis=0).argmax()) if alike.any() else of_all
        constant[kinds == kind] = measured.optima.returns[kinds == kind, number]
        add(kind, kinds == kind, named(chains[number], measured.toolbox))
    everything = np.ones(len(kinds), dtype=bool)
    add("all, a constant chain for each kind", everything, "")
    constant[:] = measured.optima.returns[:, of_all]
    add("all", everything, named(chains[of_all], measured.toolbox))
    heads = ["kind", "patches", "constant chain", "constant, dB", "agent, dB", "best chain, dB", *HEADS[:2]]
    return Section("Kinds of distortions", markdown_table(heads, rows), record)


def attribute_order(setting: Setting) -> Section:
    """The chosen tools in another order, and the first one alone."""
    measured, rng = setting.sets.measured, np.random.default_rng(setting.seed)
    stop = measured.toolbox.stop
    chosen = {
        "agent": [without_stop(chain, stop) for chain in run_agent(setting.agents[setting.toolbox], measured).actions],
        "best chain": list(setting.sets.choice().best),
    }
    orders: Mapping[str, Callable[[Chain], Chain]] = {
        "as chosen": lambda chain: chain,
        "reversed": lambda chain: chain[::-1],
        "in random order": lambda chain: tuple(rng.permutation(chain).tolist()),
        "the first tool alone": lambda chain: chain[:1],
    }
    rows: list[list[str]] = []
    record: list[dict[str, Any]] = []
    for policy, chains in chosen.items():
        note(f"order, {policy}")
        mixed = np.array([len(set(chain)) > 1 for chain in chains])
        played = {title: run_chains([order(chain) for chain in chains], measured) for title, order in orders.items()}
        usual = played["as chosen"]
        for title, results in played.items():
            gain, loss = estimate((results.returns, results.images)), difference(results, usual)
            rows.append([f"{policy}, {title}", ranged(gain, "+.2f"), "" if results is usual else ranged(loss, "+.2f")])
            record.append({"policy": policy, "order": title, "gain": asdict(gain), "against_chosen": asdict(loss)})
        share = float(mixed.mean())
        rows[-len(orders)].append(f"{share:.0%}")
        record[-len(orders)]["of_several_tools"] = share
    heads = ["tools", "gain, dB", "against as chosen, dB", "patches with two or more different tools"]
    return Section("Order", markdown_table(heads, [row + [""] * (len(heads) - len(row)) for row in rows]), record)


def attribute_removed(setting: Setting) -> Section:
    """Every tool removed in turn: from the agent's actions, from the constant chain and from the best chains."""
    sets, agent = setting.sets, setting.agents[setting.toolbox]
    measured, choice = sets.measured, sets.choice()
    whole = run_agent(agent, measured)
    chains = [without_stop(chain, measured.toolbox.stop) for chain in whole.actions]
    rows, record = [], []
    for tool, name in enumerate(measured.toolbox.names):
        note(f"without {name}")
        without, played = sets.choice([tool]), run_agent(agent, measured, [tool])
        pairs = {
            "agent": (played.returns, whole.returns),
            "constant": (without.constant_returns, choice.constant_returns),
            "best": (without.best_returns, choice.best_returns),
        }
        losses = {key: estimate((after - before, whole.images)) for key, (after, before) in pairs.items()}
        used = {"agent": frequency(tool, chains), "best": frequency(tool, choice.best)}
        cells = [*(f"{share:.0%}" for share in used.values()), *(ranged(loss, "+.2f") for loss in losses.values())]
        rows.append([name, *cells])
        record.append({"removed": name, "used": used} | {key: asdict(loss) for key, loss in losses.items()})
    heads = [
        "without",
        "in the agent's chains",
        "in the best chains",
        "agent, dB",
        "constant chain, dB",
        "best chain, dB",
    ]
    return Section("Each tool removed", markdown_table(heads, rows), record)


def attribute_rewards(setting: Setting) -> Section:
    """The agent, trained with PSNR as reward, measured by other metrics."""
    by_psnr, text, record = setting.sets, [], {}
    for metric, (title, digits) in METRICS.items():
        note(f"measured by {metric}")
        rewarded = {} if metric == "psnr" else {"reward": metric}
        sets = setting.explorer.sets(setting.toolbox, severity=setting.severity, **rewarded)
        lines = compare_policies(setting, setting.toolbox, sets)
        if rewarded:
            choice, stop = sets.choice(), sets.measured.toolbox.stop
            constant = run(FixedChain(by_psnr.choice().constant, stop), sets.measured)
            best = run_chains(by_psnr.choice().best, sets.measured)
            lines += [
                Line.of("constant chain by PSNR", constant, choice, stop),
                Line.of("best chain by PSNR", best, choice, stop),
            ]
        rows = [[line.name, *line.cells(digits)[:-1]] for line in lines]  # the metric itself takes most of the time
        text += markdown_table([f"by {title}", "gain", *HEADS[:-1]], rows)
        text.append("")
        record[metric] = [asdict(line) for line in lines]
    return Section("Other metrics than the reward", text[:-1], record)


def attribute_unseen(setting: Setting) -> Section:
    """Distortions that nothing was trained on."""
    usual = setting.sets.choice().constant
    rows, record = [], {}
    for title, distortion in UNSEEN.items():
        note(title)
        sets = setting.explorer.sets(setting.toolbox, distortion=distortion)
        measured, choice = sets.measured, sets.choice()
        lines = {line.name: line for line in compare_policies(setting, setting.toolbox, sets)}
        constant = run(FixedChain(usual, measured.toolbox.stop), measured)
        known = Line.of(f"constant chain of {setting.severity}", constant, choice, measured.toolbox.stop)
        before, (gain, _, *others) = float(constant.initial_psnr.mean()), lines["agent"].cells()
        bounds = (known, *(lines[name] for name in ("constant chain", "greedy oracle", "best chain")))
        rows.append([title, f"{before:.2f}", gain, *(f"{line.gain.mean:+.2f}" for line in bounds), *others])
        record[title] = {"input": before, "lines": [asdict(line) for line in (*lines.values(), known)]}
    bounded = (f"constant chain of {setting.severity}", "constant chain", "greedy oracle", "best chain")
    heads = ["distortion", "input, dB", "agent, dB", *(f"{name}, dB" for name in bounded), *HEADS[1:]]
    note_on = "The last columns are the agent's. Constant chain: found on other patches with the same distortion."
    return Section("Unseen distortions", [*markdown_table(heads, rows), "", note_on], record)


PARTS: Mapping[str, Callable[[Setting], Section]] = MappingProxyType(
    {
        "toolboxes": attribute_toolboxes,
        "kinds": attribute_kinds,
        "order": attribute_order,
        "removed": attribute_removed,
        "rewards": attribute_rewards,
        "unseen": attribute_unseen,
    }
)
"""All parts, by name."""


def caption(explorer: Explorer, photographs: int, others: int) -> str:
    """What all tables have in common, in words."""
    return (
        f"{explorer.patches} patches drawn from {photographs} photographs; mean gains over the input with 95 %"
        " intervals, photographs resampled. Constant chain: the best one of at most"
        f" {DEPTH} tools for all of {explorer.other_patches} patches of {others} other photographs. Greedy oracle and"
        f" best chain see the target; chains of at most {DEPTH} tools; their time is that of the chosen tools alone."
        f" Agent and random policy take at most {MAX_STEPS} tools. Share of choosing: 0 % is the constant chain, 100 %"
        f" the best chain of each patch. Worse: PSNR falls by more than {CLEARLY_DB} dB."
    )


def difference(results: EpisodeResults, usual: EpisodeResults) -> Estimate:
    """How much higher the return is, patch by patch."""
    return estimate((results.returns - usual.returns, usual.images))


def note(text: str) -> None:
    """Say on the terminal what is measured."""
    print(text, file=sys.stderr, flush=True)
