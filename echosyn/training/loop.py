"""The one training loop: Accelerate, EMA, clipping, accumulation, checkpoints, resume.

Everything random is derived from (seed, step, item), so resuming is the same as never stopping (on
a CPU the weights after a kill and a rerun are byte-identical to an undisturbed run's), and any
number of processes trains on the same batches: only the rounding of sums depends on it.
"""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from echosyn.runtime.config import PRECISIONS, setting
from echosyn.runtime.device import pick_device
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.process import deferred_stop
from echosyn.runtime.progress import bar
from echosyn.tracking import Log
from echosyn.training.batches import Batches, shuffled_indices
from echosyn.training.checkpoint import load_checkpoint, save_checkpoint
from echosyn.training.curve import Curve, Pace
from echosyn.training.precision import common_precision

LOG_EVERY = 10


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast and how precisely to train."""

    steps: int = setting(lo=1, help="optimizer steps")
    batch: int = setting(lo=1, help="samples per optimizer step, over all devices")
    lr: float = setting(lo=0.0, help="peak learning rate")
    accumulate: int = setting(1, lo=1, help="forward passes that a device splits its share into")
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
        if self.accumulate > self.batch:
            return f"accumulate {self.accumulate} is above batch {self.batch}"
        return None


M = TypeVar("M", bound=nn.Module)
Built_co = TypeVar("Built_co", bound=nn.Module, covariant=True)


class Task(Protocol[Built_co]):
    """What a model brings to the loop."""

    @property
    def size(self) -> int:
        """Training items."""

    def build(self) -> Built_co:
        """A fresh model."""

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """CPU tensors, items first, for these items; all that is random in a step is drawn here.

        Called with one item at a time, each with a generator of its own.
        """

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


def _optimizer(model: nn.Module, cfg: LoopConfig) -> torch.optim.Optimizer:
    if cfg.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=cfg.lr, momentum=0.9, weight_decay=cfg.weight_decay
        )
    # One kernel for all tensors: a fifth of the time, of which small networks have most to gain.
    return torch.optim.AdamW(
        model.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True
    )


def fit(
    task: Task[M],
    cfg: LoopConfig,
    seed: int,
    work: Path,
    log: Log,
    name: str,
    notice: Callable[[], bool] = lambda: False,
) -> M:
    """Train, resuming from `work` when it holds a checkpoint, and return the chosen model in eval.

    Ctrl-C and SIGTERM save a checkpoint after the step at hand and then stop.

    Args:
        work: folder for checkpoints, specific to these settings and inputs (shards.work_dir).
        log: of the first process; NullRun in the others.
        name: shown beside the progress bar.
        notice: tells whether this machine is about to be taken away, which saves a checkpoint at
            once; asked by every process at the same steps.

    Raises:
        EchosynError: no training items, or a loss that is not finite (the last good checkpoint
            stays), or a batch too small for so many processes.
    """
    from accelerate import Accelerator, PartialState

    if task.size == 0:
        raise EchosynError(f"{name}: no training items; is the TRAIN split empty?")
    on_cpu = pick_device().type == "cpu"  # or they see no other processes there
    processes = PartialState(cpu=on_cpu)
    world, rank = processes.num_processes, processes.process_index
    main = processes.is_main_process
    if cfg.batch < world * cfg.accumulate:
        raise EchosynError(
            f"{name}: batch {cfg.batch} cannot be shared by {world} workers x accumulate "
            f"{cfg.accumulate}: use fewer workers, or a larger batch"
        )
    torch.manual_seed(seed)
    model = task.build()
    batches = Batches(task, cfg, seed, rank, world)
    precision = common_precision(processes, task, model, cfg, seed, name)
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        step_scheduler_with_optimizer=False,
    )
    average = copy.deepcopy(model).eval() if cfg.ema else None
    optimizer = _optimizer(model, cfg)
    state = load_checkpoint(work, model, average, optimizer)
    log.resumed(state.step)
    curve = Curve(work, state.step)
    _same_start(accelerator, state.step, work)
    if average is not None:
        average.to(accelerator.device)
    if world > 1 and accelerator.device.type == "cuda":
        # Normalise over the whole batch, as one device would.
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    loader = DataLoader(
        batches,
        sampler=range(state.step * cfg.accumulate, cfg.steps * cfg.accumulate),
        batch_size=None,
        num_workers=4 if accelerator.device.type == "cuda" else 0,
        pin_memory=accelerator.device.type == "cuda",
    )
    drawn = iter(loader)

    def save(step: int) -> None:
        if main:
            state.step = state.saved = step
            with log.committing(step):
                curve.save()
                save_checkpoint(work, model, average, optimizer, state)

    def record(step: int, values: dict[str, float]) -> None:
        log.log(step, values)
        curve.add(step, (step + 1) * cfg.batch, values)

    noticed, shown = False, main and state.step < cfg.steps
    finite_until = torch.full((), cfg.steps, device=accelerator.device)  # read where values are
    progress = bar(cfg.steps * cfg.batch, name, "sample", state.step * cfg.batch, show=shown)
    pace = Pace(state.step)
    with progress, deferred_stop() as asked:
        for step in range(state.step, cfg.steps):
            torch.manual_seed(_step_seed(seed, step, rank))
            lr = learning_rate(cfg, step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            prepared.train()
            values: dict[str, Tensor] = {}
            for micro in range(cfg.accumulate):
                batch = {
                    k: v.to(accelerator.device, non_blocking=True) for k, v in next(drawn).items()
                }
                # The mean over processes of these is the mean over the whole batch.
                weight = len(next(iter(batch.values()))) * world / cfg.batch
                sync = micro == cfg.accumulate - 1
                with accelerator.autocast(), _maybe_no_sync(accelerator, prepared, sync):
                    loss, parts = task.loss(prepared, batch)
                    accelerator.backward(loss * weight)
                for key, value in {"loss": loss, **parts}.items():
                    values[key] = values.get(key, 0) + value.detach() * weight
            norm = accelerator.clip_grad_norm_(prepared.parameters(), cfg.clip or math.inf)
            watched = values["loss"] if precision == "fp16" else values["loss"] + norm
            # fp16 meets infinite gradients by design: its scaler skips those steps.
            bad = ~torch.isfinite(watched.float())
            finite_until = torch.where(bad, finite_until.clamp(max=step), finite_until)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                _update_average(average, model, ema_decay(cfg.ema, step))
            progress.update(cfg.batch)
            last = step == cfg.steps - 1
            saves = last or (step + 1) % cfg.checkpoint_every == 0
            if saves or step % LOG_EVERY == 0:
                numbers = _shared_means(accelerator, values)
                numbers["train/grad_norm"] = float(norm)
                first = int(accelerator.gather(finite_until[None]).min())
                if first < cfg.steps:
                    items = shuffled_indices(seed, first * cfg.batch, cfg.batch, task.size)
                    raise EchosynError(
                        f"{name}: the loss is {numbers['train/loss']:g} and the gradient's norm "
                        f"{float(norm):g}, not finite since step {first}, a batch of TRAIN's items "
                        f"{', '.join(map(str, items[:16]))}{', ...' * (len(items) > 16)}; the "
                        f"checkpoint of step {state.saved} stays in {work}. Lower lr, or set "
                        "precision: fp32"
                    )
                numbers |= {"train/lr": lr, "train/samples_per_s": cfg.batch * pace.rate(step + 1)}
                record(step, numbers)
                progress.set_postfix(loss=f"{numbers['train/loss']:.4g}", refresh=False)
            if main and (last or (cfg.validate_every and (step + 1) % cfg.validate_every == 0)):
                candidate = average if average is not None else model
                candidate.eval()
                with pace.paused(), torch.no_grad(), accelerator.autocast():
                    scores = task.validate(candidate)
                record(step, {f"val/{k}": v for k, v in scores.items()})
                if cfg.select == "best" and scores["loss"] < state.best_loss:
                    state.best_loss = scores["loss"]
                    state.best = _cpu_state(candidate)
            urgent = not noticed and step % LOG_EVERY == 0 and notice()
            noticed = noticed or urgent
            if saves or urgent or asked():
                with pace.paused():
                    save(step + 1)
            if asked() and not last:
                raise KeyboardInterrupt
    chosen = average if average is not None else accelerator.unwrap_model(prepared, False)
    if cfg.select == "best" and state.best is not None:
        chosen.load_state_dict(state.best)
    return chosen.eval()


def _step_seed(seed: int, step: int, rank: int) -> int:
    """For what a model draws itself (dropout); other numbers in other processes."""
    entropy = [seed, 3, step, *([rank] if rank else [])]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _same_start(accelerator: Any, step: int, work: Path) -> None:
    """Processes that resumed from different checkpoints would wait for each other for ever."""
    if accelerator.num_processes == 1:
        return
    steps = accelerator.gather(torch.tensor([step], device=accelerator.device)).tolist()
    if len(set(steps)) > 1:
        raise RuntimeError(f"{work}: workers see checkpoints of steps {steps}: a lagging share?")


def _shared_means(accelerator: Any, values: dict[str, Tensor]) -> dict[str, float]:
    """Means over the whole batch, the same in every process."""
    stacked = torch.stack([v.float() for v in values.values()])
    if accelerator.num_processes > 1:
        stacked = accelerator.reduce(stacked, "mean")
    return {f"train/{k}": v for k, v in zip(values, stacked.tolist(), strict=True)}


def _maybe_no_sync(accelerator: Any, model: nn.Module, sync: bool) -> Any:
    return nullcontext() if sync else accelerator.no_sync(model)


def _cpu_state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    shadow: list[Tensor] = list(average.parameters())
    live: list[Tensor] = list(model.parameters())
    torch._foreach_lerp_(shadow, live, 1 - decay)
    for kept, now in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(now)
