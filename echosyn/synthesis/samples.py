"""A synthetic dataset from accepted hearts: which heart gets which EF and split, then videos."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from echosyn.data.beats import draw_beats, first_phases
from echosyn.data.content import write_content
from echosyn.data.filelist import BEAT, CLASS, HEART_RATE, PHASE, write_filelist
from echosyn.data.latents import LatentSet
from echosyn.diffusion.ef_draw import draw_ef
from echosyn.diffusion.generate import VideoSampler, synthetic_name
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.encoding.codec import VideoCodec
from echosyn.models.speckle import Speckle
from echosyn.models.vae import FRAME_SIZE
from echosyn.privacy.filters.hearts import AcceptedHearts
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir
from echosyn.runtime.parallel import ahead, cores_apart
from echosyn.runtime.process import cores
from echosyn.runtime.shards import gather
from echosyn.synthesis.ef_truth import (
    EfMeter,
    ShardTruth,
    as_asked,
    read_truth,
    truth_numbers,
    with_truth,
    without_truth,
)
from echosyn.synthesis.video_writer import VideoWriter


@dataclass(frozen=True)
class SamplePlan:
    """One row per video to make: the sample index of its heart, and the row of the FileList."""

    hearts: AcceptedHearts
    indices: np.ndarray
    table: pd.DataFrame

    @property
    def ef(self) -> np.ndarray:
        """EF to ask for, percent, float32 (N,), NaN for none."""
        return self.table["EF"].to_numpy(np.float32)

    @property
    def has_ef(self) -> bool:
        return bool(np.isfinite(self.ef).all())

    @property
    def classes(self) -> list[str] | None:
        return list(self.table[CLASS]) if CLASS in self.table else None

    @property
    def fps(self) -> float:
        return float(self.table["FPS"].iloc[0])

    def beat(self, rows: list[int]) -> Tensor | None:
        """Beats per frame and the first frame's phase of these rows, float32 (n, 2), NaN where none
        is asked for; None without beats."""
        if not set(BEAT) <= set(self.table):
            return None
        rate = self.table[HEART_RATE].to_numpy(np.float64)[rows] / 60 / self.fps
        phase = self.table[PHASE].to_numpy(np.float64)[rows]
        return torch.from_numpy(np.column_stack([rate, phase])).float()


def plan_samples(
    dataset: str,
    cfg: SampleVideosConfig,
    hearts: AcceptedHearts,
    real: LatentSet,
    seed: int,
    label: str = "ef",
) -> SamplePlan:
    """Take the first accepted hearts in sample order and give each an EF, a class and a split.

    What a heart was drawn for, it keeps. Else EFs are drawn as `cfg.ef` says, where TRAIN has any,
    and for `label` "class" the classes by TRAIN's frequencies, in every split. Heart rates are
    drawn as TRAIN's are at the EF, and the phase of the first frame evenly, where TRAIN's beats are
    known.

    Raises:
        EchosynError: fewer accepted hearts than videos wanted, with the numbers; an EF label, and
            no EF in TRAIN to follow.
    """
    wanted = sum(cfg.counts.values())
    if len(hearts) < wanted:
        counts = ", ".join(f"{k} {v}" for k, v in cfg.counts.items())
        raise EchosynError(
            f"{hearts.path}: {len(hearts)} accepted hearts, but {wanted} videos are wanted "
            f"({counts}): run privacy_filter again, which draws more"
        )
    chosen = hearts.indices[:wanted]
    ef = np.full(wanted, np.nan)
    if label == "ef" or np.isfinite(real.ef).any():
        ef = draw_ef(cfg.ef, real.ef, wanted, seed)
    table = synthetic_table(
        [synthetic_name(dataset, seed, int(i)) for i in chosen],
        ef,
        [name for name, n in cfg.counts.items() for _ in range(n)],
        cfg.frames,
        cfg.fps or float(real.table["FPS"].iloc[0]),
    )
    if label == "class":
        rng = np.random.default_rng([seed, 6])
        known = sorted(c for c in real.classes if c is not None)
        table[CLASS] = [c for n in cfg.counts.values() for c in _draw_classes(known, n, rng)]
    table = as_hearts_are(table, hearts, chosen)
    if np.isfinite(real.beats[:, 0]).any():
        table[HEART_RATE] = draw_beats(real, table["EF"].to_numpy(np.float64), seed)
        table[PHASE] = np.round(first_phases(chosen, seed), 4) % 1
    return SamplePlan(hearts, chosen, table)


def _draw_classes(known: list[str], n: int, rng: np.random.Generator) -> list[str]:
    """n of the sorted classes `known` at evenly spread, shuffled ranks."""
    if not known:
        raise EchosynError(
            "classes cannot be drawn: no TRAIN video has one: set `label` of the dataset to ef "
            "or none"
        )
    ranks = (np.arange(n) + rng.random(n)) / max(n, 1)
    return rng.permutation(np.array(known)[(ranks * len(known)).astype(int)]).tolist()


def as_hearts_are(table: pd.DataFrame, hearts: AcceptedHearts, indices: np.ndarray) -> pd.DataFrame:
    """FileList rows whose EF and class are what their hearts (sample indices) were drawn for, if
    for any."""
    rows = np.searchsorted(hearts.indices, indices)
    if hearts.ef is not None:
        table = as_asked(table, hearts.ef[rows])
    if hearts.classes is not None:
        table = table.assign(**{CLASS: np.array(hearts.classes)[rows]})
    return table


def replanned(hearts: AcceptedHearts, indices: np.ndarray, table: pd.DataFrame) -> SamplePlan:
    """Other hearts in place of those of finished videos, whose FileList rows `table` are."""
    return SamplePlan(hearts, indices, as_hearts_are(without_truth(table), hearts, indices))


def synthetic_table(
    names: list[str], ef: np.ndarray, splits: list[str], frames: int, fps: float
) -> pd.DataFrame:
    """FileList of videos to make: EF in percent; volumes are unknown."""
    table = pd.DataFrame(
        {
            "FileName": names,
            "ESV": np.nan,
            "EDV": np.nan,
            "FrameHeight": FRAME_SIZE,
            "FrameWidth": FRAME_SIZE,
            "FPS": fps,
            "NumberOfFrames": frames,
            "Split": splits,
        }
    )
    return as_asked(table, ef)


def sample_shard(
    sampler: VideoSampler,
    codec: VideoCodec,
    plan: SamplePlan,
    rows: range,
    folder: Path,
    seed: int,
    speckle: Speckle | None = None,
    meter: EfMeter | None = None,
) -> None:
    """Sample and decode the videos of these rows into `folder`, painted with `speckle` if given.

    With a `meter` their EF is measured, and those that ef_truth 'reject' rejects are tried again
    with another noise; truth.csv says what was found.
    """
    names, cfg = plan.table["FileName"].tolist(), sampler.cfg
    asked = plan.table["EF"].tolist()
    truth = ShardTruth(meter, cfg, names, asked, plan.fps) if meter else None
    pending, attempt = list(rows), 0
    with VideoWriter(folder, plan.fps) as writer:
        while pending:
            again = []
            with closing(_made(sampler, codec, speckle, plan, pending, seed, attempt)) as made:
                for row, frames in made:
                    final = truth.settle(row, frames, attempt) if truth else frames
                    if final is None:
                        again.append(row)
                    else:
                        writer.put(names[row], final)
            pending, attempt = again, attempt + 1
    if truth:
        truth.write(folder)


def noise_index(seed: int, index: int, attempt: int) -> int:
    """What stands for the sample index in the seed of an attempt's noise; the index at first.

    PyTorch's CPU generator reads 32 bits of a seed, so later attempts draw theirs from all of them.
    """
    if attempt == 0:
        return index
    return int(np.random.SeedSequence([seed, index, attempt]).generate_state(1)[0])


def _made(
    sampler: VideoSampler,
    codec: VideoCodec,
    speckle: Speckle | None,
    plan: SamplePlan,
    rows: list[int],
    seed: int,
    attempt: int,
) -> Generator[tuple[int, np.ndarray]]:
    """Each of these rows with its frames, uint8 (T, H, W), of attempt number `attempt`.

    A GPU is fed with `batch` videos at once. On a CPU each thread makes a video by itself: matrix
    products of other sizes, and convolutions of more threads, sum in another order, and a video's
    bytes are to be its own.
    """
    classes = plan.classes
    knows = bool(sampler.model.spec.classes) or plan.hearts.classes is None

    def make(part: list[int]) -> np.ndarray:
        indices = plan.indices[part]
        latents = sampler.animate(
            plan.hearts.take(indices),
            torch.from_numpy(plan.ef[part]),
            [noise_index(seed, int(i), attempt) for i in indices],
            seed,
            [classes[r] for r in part] if classes and knows else None,
            plan.fps,
            plan.beat(part),
        )
        frames = codec.decode(latents.flatten(0, 1))
        videos = frames.reshape(*latents.shape[:2], *frames.shape[1:])
        if speckle is None:
            return videos
        chances = [np.random.default_rng([seed, 10, int(i), attempt]) for i in indices]
        return np.stack([speckle.paint(v, c) for v, c in zip(videos, chances, strict=True)])

    if sampler.device.type != "cpu":
        size = sampler.cfg.batch
        for part in (rows[i : i + size] for i in range(0, len(rows), size)):
            yield from zip(part, make(part), strict=True)
        return
    workers = cores()
    with cores_apart(), ThreadPoolExecutor(workers, thread_name_prefix="sample") as pool:
        try:
            done = ahead(pool, make, ([row] for row in rows), 2 * workers)
            yield from ((row, frames[0]) for row, frames in zip(rows, done, strict=True))
        finally:
            pool.shutdown(cancel_futures=True)


def finish_samples(shards: list[Path], plan: SamplePlan, out: Path) -> pd.DataFrame:
    """Assemble samples/<dataset>: Videos/ and FileList.csv, which is returned."""
    table = with_truth(plan.table, read_truth(shards))
    with atomic_dir(out) as tmp:
        gather(shards, "*.avi", tmp / "Videos")
        write_filelist(tmp / "FileList.csv", table)
        write_content(tmp)
    return table


def sample_numbers(
    table: pd.DataFrame, shards: list[Path], cfg: SampleVideosConfig, seed: int
) -> dict[str, float]:
    """Flat metrics of finished samples with FileList `table`; those of EF where they have one."""
    numbers: dict[str, float] = {
        "sample_videos/videos": len(table),
        "sample_videos/frames": int(table["NumberOfFrames"].sum()),
    }
    if table["EF"].notna().all():
        numbers["sample_videos/ef_mean"] = float(table["EF"].mean())
        numbers["sample_videos/ef_sd"] = float(table["EF"].std(ddof=0))
    return numbers | truth_numbers(read_truth(shards), cfg.ef_tolerance, seed)
