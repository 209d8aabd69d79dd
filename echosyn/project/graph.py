"""The stage graph as data: who waits for whom, and which stage to start next."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from echosyn.runtime.errors import EchosynError

Needs = Mapping[str, frozenset[str]]  # of each stage, the stages whose outputs it reads


def read_needs(root: Path) -> dict[str, frozenset[str]]:
    """The graph of dvc.yaml, by DVC's names of stages (`train_lidm@phantom`).

    Raises:
        EchosynError: dvc.yaml or params.yaml is not what DVC takes, or this is no project of it.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph
            return {
                s.addressing: frozenset(n.addressing for n in graph.successors(s)) for s in graph
            }
    except DvcException as e:
        raise EchosynError(f"{root}: {e}") from e


def read_changed(root: Path, stages: Collection[str]) -> set[str]:
    """Those of `stages` that DVC would run for their own sake: inputs, settings or outputs differ
    from what dvc.lock has."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return set(repo.status(sorted(stages)))


def wanted(needs: Needs, targets: Iterable[str]) -> set[str]:
    """The stages that `targets` name (a stage, or all of a group by its name), and all they need.

    Raises:
        EchosynError: a target that names none.
    """
    chosen: set[str] = set()
    for target in targets:
        named = {s for s in needs if s == target or s.partition("@")[0] == target}
        if not named:
            raise EchosynError(
                f"no stage {target!r} in dvc.yaml; known: {', '.join(sorted(needs))}"
            )
        chosen |= named
    return upstream(needs, chosen) if chosen else set(needs)


def upstream(needs: Needs, stages: Iterable[str]) -> set[str]:
    """`stages`, and all that they need, directly or not."""
    found: set[str] = set()
    left = list(stages)
    while left:
        stage = left.pop()
        if stage not in found:
            found.add(stage)
            left += needs[stage]
    return found


def downstream(needs: Needs, stages: Iterable[str]) -> set[str]:
    """`stages`, and all that need one of them."""
    found = set(stages)
    while more := {s for s, n in needs.items() if s not in found and n & found}:
        found |= more
    return found


def remaining(needs: Needs, seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds from each stage's start to the end of the longest chain that begins with it."""
    users: dict[str, list[str]] = {s: [] for s in needs}
    for stage, some in needs.items():
        for need in some:
            users[need].append(stage)
    found: dict[str, float] = {}

    def longest(stage: str) -> float:
        if stage not in found:
            found[stage] = seconds.get(stage, 1.0) + max(map(longest, users[stage]), default=0.0)
        return found[stage]

    return {stage: longest(stage) for stage in needs}


def next_stage(
    needs: Needs, left: Collection[str], done: Collection[str], urgency: Mapping[str, float]
) -> str | None:
    """Of the stages that are left and wait for nothing, the one before the longest chain."""
    ready = [s for s in left if not (needs[s] & (set(needs) - set(done)))]
    return max(ready, key=lambda s: (urgency[s], s), default=None)


def forecast(needs: Needs, seconds: Mapping[str, float], jobs: int) -> float:
    """Seconds that all stages take, `jobs` at a time, if each takes what `seconds` says."""
    urgency, left = remaining(needs, seconds), set(needs)
    done: set[str] = set()
    running: dict[str, float] = {}
    now = 0.0
    while left or running:
        while len(running) < jobs and (stage := next_stage(needs, left, done, urgency)):
            left.remove(stage)
            running[stage] = now + seconds.get(stage, 0.0)
        first = min(running, key=running.__getitem__)
        now = running.pop(first)
        done.add(first)
    return now
