"""Sampling videos on a cluster's workers, against the ideal on the same hardware.

Ours: `map_shards` on 1 and on 2 single-thread workers of a local Ray cluster. Ideal: one plain
process that knows nothing of Ray, and twice its rate for 2 workers, which not even two plain
processes on one machine reach, since they share its memory. The ratio is ours / ideal with 2
workers, the efficiency. Rates count from the first shard's start to the last one's end; what
starting costs is printed beside. Every side must write the same bytes.

python -m benchmarks.scaling
"""

import dataclasses
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.harness import conclude, disagree, use_threads
from echosyn.cluster.pool import map_shards
from echosyn.cluster.settings import Placement
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.objectives import make_objective
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.encoding.codec import VideoCodec
from echosyn.models.condition import ConditionSpec
from echosyn.models.vae import Vae
from echosyn.privacy.filters.hearts import HEARTS, AcceptedHearts
from echosyn.runtime.config import Params
from echosyn.runtime.files import sha256_file
from echosyn.runtime.shards import Make, Shard, plan_shards
from echosyn.synthesis.samples import SamplePlan, sample_shard, synthetic_table
from echosyn.training.diffusion import TrainLvdmConfig, new_video
from echosyn.training.vae import TrainVaeConfig

ROOT = Path(__file__).parents[1]
VIDEOS, SHARD, REPEATS = 16, 2, 3
FPS = 16.0
STAMP = "stamp.json"


@dataclass(frozen=True)
class Timing:
    """One run: seconds from call to first shard, busy span, and mean gap between two shards."""

    startup: float
    span: float
    gap: float


def prepare(folder: Path) -> Callable[[], Make]:
    """Demo-size models with random weights in `folder`; returns what prepares a worker."""
    params = Params(ROOT)
    torch.manual_seed(0)
    train, vae = (
        params.stage("train_lvdm", TrainLvdmConfig),
        params.stage("train_vae", TrainVaeConfig),
    )
    new_video(train, ConditionSpec(), 14).save(folder / "lvdm")
    make_objective(train.objective).save(folder / "lvdm")
    Vae.create(vae.model).save(folder / "vae")
    cfg = dataclasses.replace(params.stage("sample_videos", SampleVideosConfig), batch=SHARD)
    rng = np.random.default_rng(0)
    side = vae.model.latent_size
    hearts = rng.standard_normal((VIDEOS, 4, side, side), np.float32)
    every = np.arange(VIDEOS)
    stored = {"hearts": torch.from_numpy(hearts), "indices": torch.from_numpy(every)}
    save_file(stored, folder / HEARTS)
    names = [f"video{i:03d}" for i in range(VIDEOS)]
    ef = rng.uniform(20, 70, VIDEOS)
    table = synthetic_table(names, ef, ["TRAIN"] * VIDEOS, cfg.frames, FPS)
    plan = SamplePlan(AcceptedHearts(folder), every, table)

    def worker() -> Make:
        sampler, codec = VideoSampler(folder / "lvdm", cfg), VideoCodec(Vae.load(folder / "vae"))

        def make(rows: range, out: Path) -> None:
            start = time.time()
            sample_shard(sampler, codec, plan, rows, out, 0)
            stamp = {"pid": os.getpid(), "start": start, "end": time.time()}
            (out / STAMP).write_text(json.dumps(stamp))

        return make

    return worker


def _plain_process(payload: bytes, shards: list[Shard]) -> None:
    from ray import cloudpickle

    torch.set_num_threads(1)
    make = cloudpickle.loads(payload)()
    for shard in shards:
        shard.run(make)


def plainly(worker: Callable[[], Make], shards: list[Shard]) -> None:
    """The same shards in a process that knows nothing of a cluster."""
    from ray import cloudpickle

    process = get_context("spawn").Process(
        target=_plain_process, args=(cloudpickle.dumps(worker), shards)
    )
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"the plain process ended with status {process.exitcode}")


def run(workers: int, worker: Callable[[], Make], work: Path) -> tuple[Timing, str]:
    """Sample all videos on so many workers (0: in a plain process); the timing, and the hashes."""
    shutil.rmtree(work, ignore_errors=True)
    shards = plan_shards(work, VIDEOS, SHARD)
    called = time.time()
    if workers:
        map_shards(shards, worker, f"{workers} workers", "video", ROOT, Placement(workers=workers))
    else:
        plainly(worker, shards)
    stamps = [json.loads((s.folder / STAMP).read_text()) for s in shards]
    start = min(s["start"] for s in stamps)
    gaps = []
    for pid in {s["pid"] for s in stamps}:
        mine = sorted((s for s in stamps if s["pid"] == pid), key=lambda s: s["start"])
        gaps += [b["start"] - a["end"] for a, b in itertools.pairwise(mine)]
    timing = Timing(start - called, max(s["end"] for s in stamps) - start, statistics.mean(gaps))
    videos = sorted(f for s in shards for f in s.folder.glob("*.avi"))
    return timing, " ".join(sha256_file(f) for f in videos)


def main() -> None:
    import ray

    use_threads(1)
    sides = {0: "plain process", 1: "1 worker", 2: "2 workers"}
    timings: dict[int, list[Timing]] = {workers: [] for workers in sides}
    hashes = set()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        worker = prepare(folder)
        path = {"PYTHONPATH": str(ROOT), "ECHOSYN_THREADS": "1"}
        ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": path})
        try:
            for _ in range(REPEATS):
                for workers in sides:
                    timing, hashed = run(workers, worker, folder / "work")
                    timings[workers].append(timing)
                    hashes.add(hashed)
        finally:
            ray.shutdown()
    if len(hashes) != 1:
        disagree(f"{len(hashes)} different results of {len(sides) * REPEATS} runs")

    def median(workers: int, field: str) -> float:
        return statistics.median(getattr(t, field) for t in timings[workers])

    rates = {workers: VIDEOS / median(workers, "span") for workers in sides}
    print(f"{'':14} {'videos/s':>9} {'of ideal':>9} {'startup s':>10} {'between shards ms':>18}")
    for workers, label in sides.items():
        start, gap = median(workers, "startup"), 1000 * median(workers, "gap")
        share = rates[workers] / (max(workers, 1) * rates[0])
        print(f"{label:14} {rates[workers]:9.3f} {share:9.3f} {start:10.2f} {gap:18.1f}")
    print(
        f"{VIDEOS} videos in shards of {SHARD}, {REPEATS} repeats; every side wrote the same bytes"
    )
    conclude("scaling", ours=rates[2], baseline=2 * rates[0], unit="videos/s", n=VIDEOS)


if __name__ == "__main__":
    main()
