"""Whether every node of a cluster can work on this project: same versions, same folder."""

import platform
import uuid
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text

PATIENCE = 60.0  # seconds for a node to answer: it may have to start a worker process first
COMPARED = ("python", "ray", "torch", "diffusers")


def installed(package: str) -> str:
    """Version of an installed package, without importing it; "none" when it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def here() -> dict[str, str]:
    """What is compared between nodes, of this process."""
    return {
        "python": platform.python_version(),
        **{name: installed(name) for name in COMPARED[1:]},
    }


def check_nodes(ray: Any, root: Path) -> str:
    """Ask every node, through a task of its own, and describe the cluster in one line.

    Raises:
        EchosynError: a node that does not answer, has other versions, or does not see (or cannot
            write to) the project folder `root`; all of them are named.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nonce = uuid.uuid4().hex
    mark = root / ".echosyn" / "cluster" / f"{nonce}.txt"
    nodes = {n["NodeID"]: n for n in ray.nodes() if n["Alive"]}
    task = ray.remote(_probe())
    try:
        write_text(mark, nonce)
        asked = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            probe = task.options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            asked[probe.remote(str(mark), node, list(COMPARED[1:]))] = node
        done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE)
        found, problems = {}, []
        for ref, node in asked.items():
            facts = nodes[node]
            where = f"{facts['NodeManagerAddress']}, {node[:8]}"  # hosts may share a name
            name = f"node {facts['NodeManagerHostname']} ({where})"
            if ref not in done:
                problems.append(f"{name} did not answer within {PATIENCE:g} s")
                continue
            try:
                found[name] = ray.get(ref)
            except ray.exceptions.RayError as e:
                problems.append(f"{name} was lost while it was asked: {str(e).splitlines()[0]}")
    finally:
        mark.unlink(missing_ok=True)
    problems += differences(found, here(), nonce, root)
    if problems:
        raise EchosynError("the cluster cannot work on this project:\n  " + "\n  ".join(problems))
    return _summary(ray.cluster_resources(), len(nodes))


def _probe() -> Callable[[str, str, list[str]], dict[str, str]]:
    """The task. A function made here travels by value: a node may not have this package at all."""

    def probe(mark: str, node: str, packages: list[str]) -> dict[str, str]:
        import importlib.metadata
        import pathlib
        import platform

        report = {"python": platform.python_version()}
        for name in packages:
            try:
                report[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                report[name] = "none"
        path = pathlib.Path(mark)
        try:
            report["nonce"] = path.read_text()
            answer = path.with_suffix(f".{node}")
            answer.write_text("")
            answer.unlink()
            report["write"] = "yes"
        except OSError as e:
            report["error"] = str(e)
        return report

    return probe


def differences(
    reports: dict[str, dict[str, str]], mine: dict[str, str], nonce: str, root: Path
) -> list[str]:
    """What is wrong with nodes, by their reports, in words with the fix."""
    problems = []
    for name, report in reports.items():
        for what in COMPARED:
            if report.get(what) != mine[what]:
                problems.append(
                    f"{name} has {what} {report.get(what)}, the driver {mine[what]}: start Ray on "
                    "every node from the same environment"
                )
        if report.get("nonce") != nonce:
            problems.append(
                f"{name} does not see the project folder {root}: it must lie on a file system that "
                "all nodes share under the same path"
            )
        elif report.get("write") != "yes":
            problems.append(f"{name} cannot write to {root}: {report.get('error')}")
    return problems


def _summary(resources: dict[str, float], nodes: int) -> str:
    kinds = [k.split(":", 1)[1] for k in resources if k.startswith("accelerator_type:")]
    gpus = f", {resources['GPU']:g} GPU ({', '.join(kinds)})" if resources.get("GPU") else ""
    return f"{nodes} node{'s' * (nodes > 1)}, {resources.get('CPU', 0):g} CPU{gpus}"
