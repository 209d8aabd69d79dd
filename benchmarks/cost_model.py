"""What paper-size jobs cost on 1, 8 and 64 A100s: operations counted, seconds from known runs.

Two jobs: scale `paper` as params.yaml has it, our video network, and the preset `reference`, the
published one.

Operations per item are counted on the networks that conf/paper builds (torch's FlopCounterMode on
fake tensors: shapes only, nothing is computed). Seconds come from RATE, which an A100 reached on
the reference's runs of the same networks, never from a peak. Training is limited by its batch,
which any number of GPUs shares; shard work by its number of shards. docs/scaling.md says what the
tables leave out.

python -m benchmarks.cost_model
"""

import dataclasses
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from echosyn.diffusion.sampling import guidance_passes
from echosyn.diffusion.settings import SampleHeartsConfig, SampleVideosConfig
from echosyn.diffusion.windows import frame_passes
from echosyn.encoding.codec import EncodeConfig
from echosyn.models.condition import NOTHING, ConditionSpec
from echosyn.models.r2plus1d import R2Plus1d
from echosyn.models.reid import build_reid
from echosyn.models.vae import FRAME_SIZE, Vae
from echosyn.project.preset import find_preset, plan_change, write_change
from echosyn.runtime.config import Params
from echosyn.training.arms import ARMS
from echosyn.training.diffusion import TrainLidmConfig, TrainLvdmConfig, new_image, new_video
from echosyn.training.ef import TrainEfConfig
from echosyn.training.reid import TrainReidConfig
from echosyn.training.vae import TrainVaeConfig

ROOT = Path(__file__).parents[1]
RATE = 15e12  # operations/s of one A100: 15.8 (LIDM: 24 h) and 14.8 (LVDM: 2.4 s per 64 frames)
LINK = 40e9  # bytes/s of an all-reduce between nodes (400 Gbit/s, of which 80 %)
TRAINING = 3  # forward and backward together, in forwards
WORKER_START = 30.0  # seconds until a worker has its models
REAL_VIDEOS, REAL_FRAMES = 10_030, 176  # EchoNet-Dynamic: videos, mean frames
TEST_VIDEOS = 1277
BEAT = 0.04  # beats per frame, at 32 frames a second
GPUS = (1, 8, 64)
MILLION = 1_000_000


@dataclass(frozen=True)
class Training:
    """Steps over a batch that the GPUs share."""

    name: str
    steps: int
    batch: int
    flops: float  # of one item, forward
    parameters: int

    def seconds(self, gpus: int) -> float:
        used = min(gpus, self.batch)
        share = math.ceil(self.batch / used)
        reduce = 2 * (used - 1) / used * 4 * self.parameters / LINK
        return WORKER_START + self.steps * (TRAINING * share * self.flops / RATE + reduce)

    def gpu_seconds(self, gpus: int) -> float:
        return min(gpus, self.batch) * self.seconds(gpus)


@dataclass(frozen=True)
class Shards:
    """Items in shards, which go to whoever is free."""

    name: str
    items: int
    shard: int
    flops: float  # of one item

    def seconds(self, gpus: int) -> float:
        rounds = math.ceil(math.ceil(self.items / self.shard) / gpus)
        return WORKER_START + rounds * min(self.shard, self.items) * self.flops / RATE

    def gpu_seconds(self, gpus: int) -> float:
        return min(gpus, math.ceil(self.items / self.shard)) * self.seconds(gpus)


def forward_flops(
    build: Callable[[], torch.nn.Module], *shapes: tuple[int, ...]
) -> tuple[float, int]:
    """Operations (a multiply-add is two) of one forward pass, and the network's parameters."""
    counter = FlopCounterMode(display=False)
    with FakeTensorMode(), torch.no_grad():
        model = build().eval()
        inputs = [torch.zeros(shape) for shape in shapes]
        with counter:
            model(*inputs)
    return float(counter.get_total_flops()), sum(p.numel() for p in model.parameters())


def paper_params(folder: Path, preset: str | None = None) -> Params:
    """This project's settings at scale `paper`, or of a preset, in a folder of their own."""
    copytree(ROOT / "conf", folder / "conf")
    values = {**yaml.safe_load((ROOT / "params.yaml").read_text()), "scale": "paper"}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    if preset:
        write_change(folder, plan_change(folder, find_preset(folder, preset)))
    return Params(folder)


def paper_job(params: Params, videos: int) -> list[Training | Shards]:
    """The stages that need GPUs, for one dataset of EchoNet-Dynamic's size, in order."""
    vae, lidm = (
        params.stage("train_vae", TrainVaeConfig),
        params.stage("train_lidm", TrainLidmConfig),
    )
    lvdm, reid = (
        params.stage("train_lvdm", TrainLvdmConfig),
        params.stage("train_reid", TrainReidConfig),
    )
    ef, encode = params.stage("train_ef", TrainEfConfig), params.stage("encode", EncodeConfig)
    hearts = params.stage("sample_hearts", SampleHeartsConfig)
    clips = params.stage("sample_videos", SampleVideosConfig)
    z, side = (4, *[vae.model.latent_size] * 2), FRAME_SIZE // vae.model.patch
    image = (1, vae.model.colours * vae.model.patch**2, side, side)
    vae_flops, vae_size = forward_flops(lambda: Vae.create(vae.model), image, (1, *z))
    lidm_flops, lidm_size = forward_flops(lambda: new_image(lidm, NOTHING, z[-1]), (1, *z), (1,))
    published = lvdm.layout == "published"
    window, spec = lvdm.window, ConditionSpec(published=published, beat=None if published else BEAT)
    lvdm_flops, lvdm_size = forward_flops(
        lambda: new_video(lvdm, spec, z[-1]),
        (1, window, *z), (1,), (1, *z), (1, spec.dim),
    )  # fmt: skip
    reid_flops, reid_size = forward_flops(
        lambda: build_reid(dataclasses.asdict(reid.model)), (1, *z)
    )
    clip = (1, ef.model.in_channels, ef.frames, FRAME_SIZE, FRAME_SIZE)
    ef_flops, ef_size = forward_flops(lambda: R2Plus1d(ef.model), clip)

    per_heart = guidance_passes(hearts.guidance, 1) + (hearts.autoguidance != 1)
    per_heart *= hearts.steps * lidm_flops
    passes = guidance_passes(clips.guidance, clips.heart_guidance)
    seen = passes * frame_passes(clips.windows, clips.frames, window, clips.overlap, clips.steps)
    per_video = seen / window * lvdm_flops + clips.frames * vae_flops / 2
    # Every clip of a video of mean length at the regressor's frame rate, as conf/paper asks; TEST
    # by every arm and once reconstructed, and all samples by the real-trained regressors.
    clips_tested = max(REAL_FRAMES // 2 - ef.frames + 1, 1)
    tested = TEST_VIDEOS * (len(ARMS) + 1) + videos

    def training(name: str, cfg: object, flops: float, size: int) -> Training:
        return Training(name, cfg.loop.steps, cfg.loop.batch, flops, size)

    drawn = lidm.loop.steps + (lidm.guide_loop.steps if lidm.guide else 0)
    return [
        training("train_vae", vae, vae_flops, vae_size),
        Shards("encode", REAL_VIDEOS, encode.shard, REAL_FRAMES * 1.5 * vae_flops),
        Training("train_lidm", drawn, lidm.loop.batch, lidm_flops, lidm_size),
        training("train_reid", reid, 2 * reid_flops, reid_size),
        training("train_lvdm", lvdm, lvdm_flops, lvdm_size),
        Shards("sample_hearts", 2 * videos, hearts.shard, per_heart),
        Shards("sample_videos", videos, clips.shard, per_video),
        Training(
            f"train_ef, {len(ARMS)} arms, {ef.seeds} seeds",
            ef.loop.steps * len(ARMS) * ef.seeds,
            ef.loop.batch,
            ef_flops,
            ef_size,
        ),
        Shards("evaluate (EF)", tested, 64, clips_tested * ef.seeds * ef_flops),
    ]


def table(stages: list[Training | Shards]) -> str:
    """Hours and GPU-hours of every stage and in all, as Markdown."""
    heads = [f"{n} GPU{'s' * (n > 1)}: h" for n in GPUS] + [f"GPU-h at {n}" for n in GPUS]
    lines = ["| stage | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    totals = [0.0] * len(heads)
    for stage in stages:
        row = [stage.seconds(n) / 3600 for n in GPUS] + [stage.gpu_seconds(n) / 3600 for n in GPUS]
        totals = [a + b for a, b in zip(totals, row, strict=True)]
        lines.append(f"| {stage.name} | " + " | ".join(f"{x:,.2f}" for x in row) + " |")
    lines.append("| **all** | " + " | ".join(f"{x:,.1f}" for x in totals) + " |")
    return "\n".join(lines)


def report(name: str, params: Params) -> None:
    """Print a job's networks and its tables."""
    job = paper_job(params, REAL_VIDEOS)
    print(f"\n## {name}\n")
    for stage in job:
        if isinstance(stage, Training):
            print(
                f"{stage.name}: {stage.flops / 1e9:.2f} GFLOP an item, {stage.parameters:,} weights"
            )
        else:
            print(f"{stage.name}: {stage.flops / 1e9:,.1f} GFLOP an item, {stage.items:,} items")
    print(f"\n{REAL_VIDEOS:,} synthetic videos\n\n{table(job)}")
    sampling = [s for s in paper_job(params, MILLION) if s.name.startswith("sample_")]
    print(f"\n{MILLION:,} videos from trained models\n\n{table(sampling)}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report("scale paper", paper_params(Path(folder) / "ours"))
        report("preset reference", paper_params(Path(folder) / "reference", "reference"))


if __name__ == "__main__":
    main()
