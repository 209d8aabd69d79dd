"""The one training loop: Accelerate, EMA, clipping, accumulation, checkpoints, resume.

Everything random is derived from (seed, step), so resuming is the same as never stopping: on a CPU
the weights after a kill and a rerun are byte-identical to an undisturbed run's.
"""

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from echosyn.config import PRECISIONS, setting
from echosyn.device import pick_precision
from echosyn.errors import EchosynError
from echosyn.progress import bar
from echosyn.tracking import Log
from echosyn.training.checkpoint import load_checkpoint, save_checkpoint

LOG_EVERY = 10


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast and how precisely to train."""

    steps: int = setting(lo=1, help="optimizer steps")
    batch: int = setting(lo=1, help="samples per device and forward pass")
    lr: float = setting(lo=0.0, help="peak learning rate")
    accumulate: int = setting(1, lo=1, help="forward passes per optimizer step")
    optimizer: str = setting("adamw", choices=("adamw", "sgd"))
    weight_decay: float = setting(0.0, lo=0.0)
    warmup: int = setting(0, lo=0, help="steps of linear warm-up")
    schedule: str = setting("cosine", choices=("cosine", "constant", "step"))
    decay_every: int = setting(0, lo=0, help="steps between drops of the step schedule")
    decay: float = setting(0.1, lo=0.0, hi=1.0, help="factor of each drop")
    clip: float = setting(1.0, lo=0.0, help="largest gradient norm, 0 for none")
    ema: float = setting(0.0, lo=0.0, hi=0.99999, help="decay of the weight average, 0 for none")
    precision: str = setting("auto", choices=PRECISIONS)
    validate_every: int = setting(0, lo=0, help="steps between validations, 0 for the end only")
    checkpoint_every: int = setting(200, lo=1, help="steps between checkpoints")
    select: str = setting("last", choices=("last", "best"), help="weights kept: by validation loss")

    def check(self) -> str | None:
        if self.schedule == "step" and self.decay_every == 0:
            return "schedule 'step' needs decay_every"
        if self.warmup >= self.steps:
            return f"warmup {self.warmup} is not below steps {self.steps}"
        return None


class Task(Protocol):
    """What a model brings to the loop."""

    @property
    def size(self) -> int:
        """Training items."""

    def build(self) -> nn.Module:
        """A fresh model."""

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """CPU tensors for these items; everything random in the step is drawn here."""

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss to minimise and named parts of it to log; calls `model(...)` once."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Numbers on VAL, deterministic; "loss" is what `select: best` minimises."""


def learning_rate(cfg: LoopConfig, step: int) -> float:
    """Learning rate of a step in 0 .. steps - 1."""
    if step < cfg.warmup:
        return cfg.lr * (step + 1) / cfg.warmup
    if cfg.schedule == "constant":
        return cfg.lr
    if cfg.schedule == "step":
        return cfg.lr * cfg.decay ** (step // cfg.decay_every)
    done = (step - cfg.warmup) / (cfg.steps - cfg.warmup)
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * done))


def ema_decay(target: float, step: int) -> float:
    """Decay at a step: young averages forget faster, so short runs are not stuck at the start."""
    return min(target, (1 + step) / (10 + step))


def shuffled_indices(seed: int, first: int, count: int, n: int) -> np.ndarray:
    """Items first .. first + count of an endless sequence of shuffled epochs over n items."""
    epochs = range(first // n, (first + count - 1) // n + 1)
    order = np.concatenate([np.random.default_rng([seed, 1, e]).permutation(n) for e in epochs])
    offset = first - epochs[0] * n
    return order[offset : offset + count]


class _Batches(Dataset):
    """Micro-batch k of the run, a pure function of (seed, k, rank)."""

    def __init__(self, task: Task, cfg: LoopConfig, seed: int, rank: int, world: int) -> None:
        self.task, self.cfg, self.seed, self.rank, self.world = task, cfg, seed, rank, world

    def __len__(self) -> int:
        return self.cfg.steps * self.cfg.accumulate

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        first = (k * self.world + self.rank) * self.cfg.batch
        indices = shuffled_indices(self.seed, first, self.cfg.batch, self.task.size)
        return self.task.batch(indices, np.random.default_rng([self.seed, 2, k, self.rank]))


def _optimizer(model: nn.Module, cfg: LoopConfig) -> torch.optim.Optimizer:
    if cfg.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=cfg.lr, momentum=0.9, weight_decay=cfg.weight_decay
        )
    return torch.optim.AdamW(model.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)


def fit(task: Task, cfg: LoopConfig, seed: int, work: Path, log: Log, name: str) -> nn.Module:
    """Train, resuming from `work` when it holds a checkpoint, and return the chosen model in eval.

    Args:
        work: folder for checkpoints, specific to these settings and inputs (shards.work_dir).
        name: shown beside the progress bar.

    Raises:
        EchosynError: no training items, or a loss that is not finite (the last good checkpoint
            stays).
    """
    from accelerate import Accelerator

    if task.size == 0:
        raise EchosynError(f"{name}: no training items; is the TRAIN split empty?")
    precision = pick_precision(cfg.precision)
    accelerator = Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        step_scheduler_with_optimizer=False,
    )
    torch.manual_seed(seed)
    model = task.build()
    average = copy.deepcopy(model).eval() if cfg.ema else None
    optimizer = _optimizer(model, cfg)
    state = load_checkpoint(work, model, average, optimizer)
    if average is not None:
        average.to(accelerator.device)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    loader = DataLoader(
        _Batches(task, cfg, seed, accelerator.process_index, accelerator.num_processes),
        sampler=range(state.step * cfg.accumulate, cfg.steps * cfg.accumulate),
        batch_size=None,
        num_workers=4 if accelerator.device.type == "cuda" else 0,
        pin_memory=accelerator.device.type == "cuda",
    )
    batches = iter(loader)
    main = accelerator.is_main_process
    per_step = cfg.batch * cfg.accumulate * accelerator.num_processes
    progress = bar(cfg.steps * per_step, name, "sample", initial=state.step * per_step)
    for step in range(state.step, cfg.steps):
        torch.manual_seed(int(np.random.SeedSequence([seed, 3, step]).generate_state(1)[0]))
        lr = learning_rate(cfg, step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        prepared.train()
        values: dict[str, Tensor] = {}
        for micro in range(cfg.accumulate):
            batch = {
                k: v.to(accelerator.device, non_blocking=True) for k, v in next(batches).items()
            }
            sync = micro == cfg.accumulate - 1
            with accelerator.autocast(), _maybe_no_sync(accelerator, prepared, sync):
                loss, parts = task.loss(prepared, batch)
                accelerator.backward(loss / cfg.accumulate)
            for key, value in {"loss": loss, **parts}.items():
                values[key] = values.get(key, 0) + value.detach() / cfg.accumulate
        norm = accelerator.clip_grad_norm_(prepared.parameters(), cfg.clip or math.inf)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            _update_average(average, model, ema_decay(cfg.ema, step))
        progress.update(per_step)
        last = step == cfg.steps - 1
        saves = last or (step + 1) % cfg.checkpoint_every == 0
        if saves or step % LOG_EVERY == 0:
            numbers = {f"train/{k}": float(v) for k, v in values.items()}
            numbers["train/grad_norm"] = float(norm)
            # fp16 meets infinite gradients by design: its scaler skips those steps.
            watched = numbers["train/loss"] + (0.0 if precision == "fp16" else float(norm))
            if not math.isfinite(watched):
                raise EchosynError(
                    f"{name}: the loss is {numbers['train/loss']:g} and the gradient's norm "
                    f"{float(norm):g} at step {step}; the checkpoint of step {state.saved} stays "
                    f"in {work}. Lower lr, or set precision: fp32"
                )
            log.log(step, {**numbers, "train/lr": lr})
            progress.set_postfix(loss=f"{numbers['train/loss']:.4g}", refresh=False)
        if last or (cfg.validate_every and (step + 1) % cfg.validate_every == 0):
            candidate = average if average is not None else model
            candidate.eval()
            with torch.no_grad(), accelerator.autocast():
                scores = task.validate(candidate)
            log.log(step, {f"val/{k}": v for k, v in scores.items()})
            if cfg.select == "best" and scores["loss"] < state.best_loss:
                state.best_loss = scores["loss"]
                state.best = _cpu_state(candidate)
        if saves and main:
            state.step = state.saved = step + 1
            save_checkpoint(work, model, average, optimizer, state)
            log.flush()
    progress.close()
    chosen = average if average is not None else accelerator.unwrap_model(prepared, False)
    if cfg.select == "best" and state.best is not None:
        chosen.load_state_dict(state.best)
    return chosen.eval()


def _maybe_no_sync(accelerator: object, model: nn.Module, sync: bool) -> object:
    return nullcontext() if sync else accelerator.no_sync(model)


def _cpu_state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    shadow, live = list(average.parameters()), list(model.parameters())
    torch._foreach_lerp_(shadow, live, 1 - decay)
    for kept, now in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(now)
