"""EF of videos as trained regressors measure it, clip by clip."""

import zlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn

from echosyn.arithmetic.trust import Probe, trusted
from echosyn.data.frames import FrameSet
from echosyn.models.ef_regressor import EfRegressor, load_seeds
from echosyn.runtime.device import autocast, pick_device
from echosyn.runtime.progress import bar

CLIPS = 4  # of a video, whose mean is its measured EF, where no setting says otherwise


def clip_starts(length: int, frames: int, clips: int) -> np.ndarray:
    """Starts of up to `clips` clips spread evenly over a video, without repeats; 0: every start."""
    last = max(length - frames, 0)
    if clips == 0:
        return np.arange(last + 1)
    return np.unique(np.linspace(0, last, clips).round().astype(int))


def clip_probe(model: nn.Module, shape: tuple[int, ...]) -> Probe:
    """A batch of clips of that shape through a regressor, for a check of the arithmetic."""
    return Probe("clips", model, (torch.randint(0, 256, shape, dtype=torch.uint8),))


@torch.inference_mode()
def predict_clips(
    model: nn.Module,
    videos: list[tuple[FrameSet, int]],
    frames: int,
    clips: int,
    batch: int = 16,
    show: bool = True,
    precision: str | None = None,
) -> list[np.ndarray]:
    """EF in percent of evenly spaced clips of each video, one array per video, in clip order.

    precision: what to compute in, if this machine gets it right; None: as the caller does.
    """
    starts = [clip_starts(int(s.lengths[v]), frames, clips) for s, v in videos]
    jobs = [(s, v, int(t)) for (s, v), some in zip(videos, starts, strict=True) for t in some]
    device = next(model.parameters()).device
    within: AbstractContextManager = nullcontext()
    if precision is not None and jobs:
        probe = clip_probe(model, (batch, frames, *videos[0][0].data.shape[1:]))
        within = autocast(device, trusted(precision, device, probe, "EF regressor"))
    predicted = []
    with within, bar(len(jobs), "EF", "clip", show=show) as progress:
        for i in range(0, len(jobs), batch):
            part = jobs[i : i + batch]
            x = torch.from_numpy(np.stack([s.clip(v, start, frames) for s, v, start in part]))
            predicted.append(model(x.to(device)).float().cpu().numpy())
            progress.update(len(part))
    ends = np.cumsum([len(some) for some in starts])[:-1]
    return np.split(np.concatenate(predicted), ends)


def predict_ef(
    model: EfRegressor, frames: FrameSet, clips: int, precision: str = "auto", seed: int = 0
) -> np.ndarray:
    """EF of every video of a set, in percent, (V, 2): the mean over clips, and one clip's.

    That one is drawn per video from `seed` and its place in the dataset, as EchoNet-Dynamic tests
    on one random clip.
    """
    videos = [(frames, v) for v in range(len(frames))]
    of_clips = predict_clips(model, videos, model.frames, clips, precision=precision)
    names = frames.table["FileName"]
    drawn = [
        some[np.random.default_rng([seed, zlib.crc32(name.encode())]).integers(len(some))]
        for some, name in zip(of_clips, names, strict=True)
    ]
    return np.stack([[some.mean() for some in of_clips], drawn], 1)


def measure_ef(
    folder: Path | str, frames: FrameSet, clips: int, precision: str = "auto"
) -> np.ndarray:
    """EF of every video by the mean of an arm's regressors and of clips, in percent (V,)."""
    made = [
        predict_ef(model.to(pick_device()), frames, clips, precision)[:, 0]
        for model in load_seeds(folder)
    ]
    return np.mean(made, axis=0)
