"""A dataset, its latents, small untrained models and candidates, as the video filter meets them."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from tiny_video import tiny_video

from echosyn.beat.lv_area import without_beats
from echosyn.data.beats import write_beats
from echosyn.data.filelist import COLUMNS, PATIENT, video_path, write_filelist
from echosyn.data.frames import load_frames
from echosyn.data.latents import LatentSet
from echosyn.data.phantom import PhantomConfig, render_patient
from echosyn.data.video import write_video
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.objectives import make_objective
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.encoding.codec import EncodeConfig, VideoCodec
from echosyn.encoding.encode import encode_shard, finish_encoding
from echosyn.models.condition import ConditionSpec
from echosyn.models.reid import build_reid
from echosyn.models.store import save_model
from echosyn.models.vae import Vae, VaeConfig
from echosyn.privacy.filters.hearts import AcceptedHearts
from echosyn.runtime.shards import plan_shards
from echosyn.synthesis.replace import Sources
from echosyn.synthesis.samples import finish_samples, plan_samples, sample_shard
from echosyn.synthesis.video_writer import VideoModels

SEED = 3
SPLITS = ("TRAIN",) * 4 + ("VAL",) * 5 + ("TEST",) * 3
FPS, FRAMES = 32.0, 24  # of the real videos; their latents are at half of that rate
SHORT = 4  # the first VAL video is cut to fewer frames than a synthetic one has
ENCODING = EncodeConfig(fps=16.0, batch=16, shard=8)
SAMPLING = SampleVideosConfig(
    train=3,
    val=1,
    test=1,
    frames=10,
    overlap=0,
    steps=1,
    guidance=1.0,
    batch=2,
    shard=2,
    speckle=False,
)
REID = {"encoder": "small", "widths": [8, 16], "embedding": 16}


def models_in(root: Path) -> VideoModels:
    folders = ("lvdm", "vae", "ef/phantom/real", "lidm/phantom", "speckle/phantom")
    return VideoModels(*(root / "models" / name for name in folders))


def make_project(root: Path, hearts: int = 9) -> Sources:
    """Everything that filter_videos reads, in the project folder `root`."""
    sources = Sources(
        "phantom", root / "candidates/phantom", root / "privacy/phantom/hearts",
        root / "latents/train/phantom", root / "data/train/phantom", root / "models/reid/phantom",
        models_in(root), root / ".echosyn/frames",
    )  # fmt: skip
    write_real(sources.videos)
    torch.manual_seed(SEED)
    vae = Vae.create(VaeConfig(widths=(8, 16, 16)))
    vae.save(sources.vae)
    model = tiny_video(10, ConditionSpec(), 14)
    model.leave.weight.data *= 0.1  # noise, which is like no patient
    model.save(sources.models.video)
    make_objective("flow").save(sources.models.video)
    save_model(sources.encoder, build_reid(REID), REID)
    codec = VideoCodec(Vae.load(sources.vae), ENCODING.batch)
    frames = load_frames(sources.videos, ENCODING.fps, sources.cache)
    shards = plan_shards(root / "encoding", len(frames), ENCODING.shard)
    for shard in shards:
        shard.run(lambda rows, folder: encode_shard(codec, frames, rows, folder))
    folders = [s.folder for s in shards]
    finish_encoding(folders, frames, sources.latents, root / "reconstructions/train/phantom")
    sources.hearts.mkdir(parents=True)
    write_beats(root / "beats/train/phantom", without_beats(LatentSet(sources.latents)))
    drawn = torch.randn(hearts, 4, 14, 14, generator=torch.Generator().manual_seed(SEED))
    indices = torch.arange(hearts) * 2  # every other heart was refused
    save_file({"hearts": drawn, "indices": indices}, sources.hearts / "hearts.safetensors")
    make_candidates(sources, root / "sampling")
    return sources


def write_real(folder: Path) -> None:
    cfg = PhantomConfig(train=4, val=5, test=3, frames=FRAMES)
    (folder / "Videos").mkdir(parents=True)
    rows = []
    for i, split in enumerate(SPLITS):
        frames = render_patient(i, cfg, SEED).frames
        frames = frames[:SHORT] if i == SPLITS.index("VAL") else frames
        name = f"0XREAL{i:02d}"
        write_video(video_path(folder, name), frames, FPS)
        rows.append((name, 40.0 + i, 50.0, 100.0, 112, 112, FPS, len(frames), split, f"who{i}"))
    write_filelist(folder / "FileList.csv", pd.DataFrame(rows, columns=[*COLUMNS, PATIENT]))


def make_candidates(sources: Sources, work: Path) -> None:
    """As sample_videos makes them."""
    plan = plan_samples(
        "phantom",
        SAMPLING,
        AcceptedHearts(sources.hearts),
        LatentSet(sources.latents, "TRAIN"),
        SEED,
    )
    sampler, codec = VideoSampler(sources.models.video, SAMPLING), VideoCodec(Vae.load(sources.vae))
    work.mkdir()
    sample_shard(sampler, codec, plan, range(len(plan.table)), work, SEED)
    finish_samples([work], plan, sources.candidates)


def plant(sources: Sources, place: int) -> str:
    """Put frames of a TRAIN patient in the place of a candidate; returns its name."""
    real = load_frames(sources.videos, ENCODING.fps, sources.cache)
    stolen = np.array(real.video(2)[1 : 1 + SAMPLING.frames])
    name = pd.read_csv(sources.candidates / "FileList.csv")["FileName"][place]
    write_video(video_path(sources.candidates, name), stolen, ENCODING.fps)
    return name
