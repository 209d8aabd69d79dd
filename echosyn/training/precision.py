"""The precision of a training: what is asked for, where this machine gets a step of it right."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from echosyn.arithmetic.trust import Probe, trusted
from echosyn.runtime.device import pick_precision
from echosyn.training.batches import Batches

if TYPE_CHECKING:
    from echosyn.training.loop import LoopConfig, Task


def training_loss(task: "Task", model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The loss of a batch, as a step of training minimises it."""
    model.train()
    return task.loss(model, batch)[0]


def step_probe(
    task: "Task", model: nn.Module, cfg: "LoopConfig", seed: int, rank: int = 0, world: int = 1
) -> Probe:
    """A process's share of the first step of training, for a check of the arithmetic."""
    batch = Batches(task, cfg, seed, rank, world)[0]
    return Probe("a training step", training_loss, (task, model, batch))


def common_precision(
    processes: Any, task: "Task", model: nn.Module, cfg: "LoopConfig", seed: int, name: str
) -> str:
    """What every process may use: machines differ, and gradients of two precisions do not add."""
    precision, world = pick_precision(cfg.precision), processes.num_processes
    with processes.local_main_process_first():  # the others find its result in the cache
        if precision != "fp32":
            probe = step_probe(task, model, cfg, seed, processes.process_index, world)
            precision = trusted(precision, processes.device, probe, name)
    if world == 1:
        return precision
    from accelerate.utils import gather_object

    every = gather_object([precision])
    return precision if all(p == precision for p in every) else "fp32"
