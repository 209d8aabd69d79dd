"""Where work is placed on a cluster: section `cluster` of params.yaml. Knows nothing of Ray.

Placement changes no result, so no stage of the graph depends on this section.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echosyn.runtime.config import build, read_yaml, setting
from echosyn.runtime.errors import EchosynError


@dataclass(frozen=True)
class Placement:
    """Workers of one stage, what each holds, and how often a lost one is replaced."""

    workers: int | None = setting(
        None, lo=1, help="processes; None: as many shard workers as fit, one training worker"
    )
    min_workers: int | None = setting(
        None, lo=1, help="training goes on with so few when nodes are gone; None: waits for all"
    )
    cpus: int = setting(1, lo=1, help="CPU cores per worker, which are also its threads")
    gpus: float = setting(0.0, lo=0.0, help="GPUs per worker; half a GPU is allowed for shards")
    accelerator: str | None = setting(None, help="kind of GPU, as Ray names it: A100, H100, ...")
    retries: int = setting(3, lo=0, help="times that the work of a lost worker is tried again")

    def check(self) -> str | None:
        if self.min_workers and self.min_workers > (self.workers or 1):
            return f"min_workers {self.min_workers} is above workers {self.workers or 1}"
        if self.gpus > 1 and self.gpus != int(self.gpus):
            return f"gpus {self.gpus:g}: use a fraction of one GPU, or a whole number"
        if self.accelerator and not self.gpus:
            return f"accelerator {self.accelerator} without gpus: set gpus: 1"
        return None


@dataclass(frozen=True)
class ClusterConfig:
    """Placement of training and of shard work, and what single stages want otherwise."""

    train: Placement = Placement(workers=1)
    shards: Placement = Placement()
    stages: dict[str, dict] | None = None

    def placement(self, kind: str, stage: str) -> Placement:
        """Placement of a stage; `kind` is "train" or "shards".

        Raises:
            EchosynError: an impossible value under cluster.stages.<stage>.
        """
        base: Placement = getattr(self, kind)
        changes = (self.stages or {}).get(stage)
        if not changes:
            return base
        merged = {**{f: getattr(base, f) for f in Placement.__dataclass_fields__}, **changes}
        return build(Placement, merged, f"params.yaml: cluster.stages.{stage}")


def cluster_config(root: Path) -> ClusterConfig:
    """Section `cluster` of the project's params.yaml; defaults where it is silent."""
    section: Any = read_yaml(root / "params.yaml").get("cluster")
    return build(ClusterConfig, section, "params.yaml: cluster")


def address() -> str | None:
    """Address of the cluster that stages run on, from RAY_ADDRESS; None: in this process.

    Raises:
        EchosynError: the address of something else than a cluster's own port.
    """
    given = os.environ.get("RAY_ADDRESS", "").strip()
    if not given:
        return None
    scheme, found, rest = given.partition("://")
    if found:
        kinds = {
            "http": "the jobs server: `echosyn submit --address` takes it",
            "https": "the jobs server: `echosyn submit --address` takes it",
            "ray": "a Ray Client, which cannot drive stages from outside: use `echosyn submit`",
        }
        what = kinds.get(scheme, "not known")
        raise EchosynError(
            f"RAY_ADDRESS {given}: this is the address of {what}. Here the cluster's own is "
            "wanted, such as 10.0.0.5:6379, or auto on one of its nodes"
            if scheme in kinds
            else f"RAY_ADDRESS {given}: unknown scheme {scheme!r}; write {rest or 'host:port'}"
        )
    host, colon, port = given.rpartition(":")
    if given not in ("auto", "local") and not (host and colon and port.isdigit()):
        raise EchosynError(f"RAY_ADDRESS {given}: expected host:port, such as 10.0.0.5:6379")
    if given == "local":
        raise EchosynError("RAY_ADDRESS local: start a cluster (`ray start --head`) and use auto")
    return given
