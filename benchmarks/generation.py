"""What benchmarks of sampling share: hearts, EFs and noise, the same for all; rows of a table."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.training import Rivals
from benchmarks.video_quality import Judge
from echosyn.data.beats import draw_beats, first_phases
from echosyn.data.frames import FrameSet, load_frames
from echosyn.data.video import write_video
from echosyn.diffusion.ef_draw import draw_ef
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.encoding.codec import VideoCodec
from echosyn.metrics.interval import Estimate
from echosyn.models.vae import Vae
from echosyn.runtime.files import atomic_dir, digest, read_json, write_json

SEED, BATCH = 0, 4
NUMBERS = {
    "kd_efnet": "kernel, efnet",
    "kd_motion": "kernel, motion",
    "fd_efnet": "Frechet, efnet",
    "fd_motion": "Frechet, motion",
    "r": "EF r",
    "slope": "EF slope",
    "mae": "EF MAE (%)",
}


class Bench:
    """Samples from models in rivals.work, judged against the project's real TEST videos.

    Args:
        frames: of a video. n: videos of a row.
    """

    def __init__(self, rivals: Rivals, frames: int, n: int) -> None:
        self.rivals, self.frames, self.n = rivals, frames, n
        self.fps = float(rivals.sets("TEST")[0].table["FPS"].iloc[0])
        videos = rivals.project / "data/train" / rivals.dataset
        self.real: FrameSet = load_frames(videos, self.fps, rivals.work / "f")
        test = self.real.split("TEST")
        arm = rivals.project / "models/ef" / rivals.dataset / "real"
        self.judge = Judge(test, arm, int(min(test.lengths.min(), frames)))
        self.codec = VideoCodec(Vae.load(rivals.project / "models/vae"))
        self.image = rivals.project / "models/lidm" / rivals.dataset

    def asked(self) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Hearts (n, 4, h, w) of TEST videos, and as TRAIN's are EFs (n,), percent, and rates (n,),
        beats a minute."""
        train = self.rivals.sets("TRAIN")[0]
        ef = draw_ef("real", train.ef, self.n, SEED)
        return self.rivals.hearts(self.n, SEED), ef, draw_beats(train, ef, SEED)

    def config(self, model: str, **settings: object) -> SampleVideosConfig:
        common = {"train": self.n, "val": 0, "test": 0, "frames": self.frames, "batch": BATCH}
        return SampleVideosConfig(**{**common, "model": model, "overlap": 4, **settings})

    def sample(self, cfg: SampleVideosConfig) -> tuple[Tensor, float, int]:
        """Latents (n, T, 4, h, w), seconds per video (median over batches), frames that went
        through the network for one."""
        image = self.image if cfg.image_steps else None
        sampler = VideoSampler(self.rivals.work / cfg.model, cfg, image)
        hearts, ef, rates = self.asked()
        fps = cfg.fps or self.fps
        beats = np.column_stack([rates / 60 / fps, first_phases(np.arange(self.n), SEED)])
        beats = torch.tensor(beats, dtype=torch.float32)
        made, seconds = [], []
        for i in range(0, self.n, BATCH):
            rows = slice(i, min(i + BATCH, self.n))
            asked = torch.tensor(ef[rows], dtype=torch.float32)
            start = time.perf_counter()
            numbers = range(rows.start, rows.stop)
            made.append(
                sampler.animate(hearts[rows], asked, numbers, SEED, fps=fps, beat=beats[rows])
            )
            seconds.append((time.perf_counter() - start) / len(made[-1]))
        # The first batch is the warm-up.
        return torch.cat(made), statistics.median(seconds[1:] or seconds), sampler.frame_passes()

    def row(self, name: str, cfg: SampleVideosConfig, kind: str) -> dict:
        """A finished row of the table `kind` is read from work/<kind>, not made again. Its first
        videos and its latents lie beside it."""
        key = digest({"cfg": asdict(cfg)}, [self.rivals.work / cfg.model])
        folder = self.rivals.work / kind / f"{name.replace(', ', '-').replace(' ', '_')}-{key[:8]}"
        if not (folder / "row.json").is_file():
            latents, seconds, passes = self.sample(cfg)
            videos = [self.codec.decode(z) for z in latents]
            # Real videos of another rate are not what these would be compared with.
            comparable = cfg.fps in (0.0, self.fps)
            quality = asdict(self.judge.measure(videos, self.asked()[1])) if comparable else {}
            with atomic_dir(folder) as tmp:
                for i, video in enumerate(videos[:BATCH]):
                    write_video(tmp / f"{i}.avi", video, cfg.fps or self.fps)
                torch.save(latents.half(), tmp / "latents.pt")
                facts = {"steps": cfg.steps, "frames": passes, "seconds": seconds}
                write_json(tmp / "row.json", {**facts, **quality})
        return {"name": name, **read_json(folder / "row.json"), "folder": folder}

    def floor(self) -> dict:
        """As many real TRAIN videos in the generator's place."""
        fit = self.real.split("TRAIN")
        n = min(self.n, len(fit))
        spread = np.linspace(0, len(fit) - 1, n).round().astype(int)
        found = {k: asdict(v) for k, v in self.judge.distances(fit.take(spread)).items()}
        return {"name": "real TRAIN (floor)", **found}


def cell(row: dict, key: str) -> str:
    """A value with its interval, to as many digits as the value's size calls for."""
    if key not in row:
        return ""
    e = Estimate(**row[key])
    form = ".1f" if key == "mae" else ".2f" if key in ("r", "slope", "seam") else ".3g"
    return f"{e.value:{form}} [{e.lo:{form}}, {e.hi:{form}}]"


def table(rows: Sequence[dict], numbers: dict[str, str] = NUMBERS) -> list[str]:
    """Markdown, a line per row."""
    head = ["", "steps", "frames through the network", *numbers.values(), "s per video"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---|' * (len(head) - 1)}"]
    for row in rows:
        passes = f"{row['frames']:,}" if "frames" in row else ""
        spent = f"{row['seconds']:.2f}" if "seconds" in row else ""
        facts = [row["name"], str(row.get("steps", "")), passes]
        lines.append(f"| {' | '.join([*facts, *(cell(row, k) for k in numbers), spent])} |")
    return lines


def first_video(row: dict) -> Path:
    return row["folder"] / "0.avi"
