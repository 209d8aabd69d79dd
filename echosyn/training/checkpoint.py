"""Checkpoints: written under a temporary name and renamed, read without unpickling."""

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, read_json, write_json


@dataclass
class TrainState:
    """Where a run stands: steps done, and the best validated weights so far."""

    step: int = 0
    saved: int = 0
    best_loss: float = math.inf
    best: dict[str, Tensor] | None = field(default=None, repr=False)


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in state.items()}


def save_checkpoint(
    work: Path,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
) -> None:
    """Write checkpoint-<step> whole, then remove the older ones."""
    target = work / f"checkpoint-{state.step:08d}"
    with atomic_dir(target) as tmp:
        save_file(_contiguous(model.state_dict()), tmp / "model.safetensors")
        if average is not None:
            save_file(_contiguous(average.state_dict()), tmp / "average.safetensors")
        if state.best is not None:
            save_file(_contiguous(state.best), tmp / "best.safetensors")
        torch.save(optimizer.state_dict(), tmp / "optimizer.pt")
        best = state.best_loss if math.isfinite(state.best_loss) else None
        write_json(tmp / "state.json", {"step": state.step, "best_loss": best})
    for old in work.glob("checkpoint-*"):
        if old != target:
            shutil.rmtree(old)


def load_checkpoint(
    work: Path,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
) -> TrainState:
    """Load the newest checkpoint into the arguments; a fresh state when there is none.

    Raises:
        EchosynError: the checkpoint does not fit the model (its folder may be removed).
    """
    found = sorted(work.glob("checkpoint-*"))
    if not found:
        return TrainState()
    folder = found[-1]
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
        if average is not None:
            average.load_state_dict(load_file(folder / "average.safetensors"))
        optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
        facts = read_json(folder / "state.json")
        best = folder / "best.safetensors"
        return TrainState(
            step=facts["step"],
            saved=facts["step"],
            best_loss=math.inf if facts["best_loss"] is None else facts["best_loss"],
            best=load_file(best) if best.is_file() else None,
        )
    except (OSError, RuntimeError, ValueError, KeyError) as e:
        raise EchosynError(f"{folder} cannot be resumed from; remove it to start over: {e}") from e
