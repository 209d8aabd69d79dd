"""What a project's networks compute, at the sizes of its scale, on made-up data: for checks of the
arithmetic before there is anything to train on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from torch import nn

from echosyn.arithmetic.trust import Probe
from echosyn.beat.lv_area import BeatsConfig, LvAreaTask, Traced
from echosyn.data.filelist import CLASS
from echosyn.data.frames import FrameSet
from echosyn.data.latents import LatentSet, pack, write_index, write_shard
from echosyn.diffusion.generate import window_probe
from echosyn.diffusion.hearts import heart_probe
from echosyn.encoding.codec import EncodeConfig, VideoCodec
from echosyn.metrics.ef_meter import clip_probe
from echosyn.models.vae import FRAME_SIZE, Vae
from echosyn.runtime.config import Params, build, read_yaml
from echosyn.training.classify import ClassifierTask, ClassifyConfig
from echosyn.training.diffusion import LidmTask, LvdmTask, TrainLidmConfig, TrainLvdmConfig
from echosyn.training.distill import DistillConfig, DistillTask
from echosyn.training.ef import EfTask, TrainEfConfig
from echosyn.training.folds import Labelled
from echosyn.training.loop import LoopConfig, Task
from echosyn.training.precision import step_probe
from echosyn.training.reid import ReidTask, TrainReidConfig
from echosyn.training.vae import TrainVaeConfig, VaeTask

VIDEOS = 8
CLASSES = ("a", "b")


@dataclass(frozen=True)
class Rehearsed:
    """A network's probe, the stage it belongs to, and the precision that its settings ask for."""

    stage: str
    probe: Probe
    precision: str


@contextmanager
def rehearsal(params: Params) -> Iterator[list[Rehearsed]]:
    """All training steps of the graph, and the passes that encoding, sampling and measuring make.

    What is not asked for in params.yaml (`classify`, `distill`) is there as its conf file has it.

    Raises:
        EchosynError: settings that are not possible.
    """
    vae = params.stage("train_vae", TrainVaeConfig)
    lidm = params.stage("train_lidm", TrainLidmConfig)
    lvdm = params.stage("train_lvdm", TrainLvdmConfig)
    reid = params.stage("train_reid", TrainReidConfig)
    ef = params.stage("train_ef", TrainEfConfig)
    at = {stage: params.conf(stage) for stage in ("classify", "distill_lvdm")}
    classify = build(ClassifyConfig, read_yaml(at["classify"]), str(at["classify"]))
    distill = build(DistillConfig, read_yaml(at["distill_lvdm"]), str(at["distill_lvdm"]))
    beats, encode = params.stage("beats", BeatsConfig), params.stage("encode", EncodeConfig)
    length = max(lvdm.window * max(lvdm.strides), ef.frames, classify.frames)
    labels = {params.dataset(name).label for name in params.raw.get("datasets") or {}}
    frames = made_up_frames(length, ef.fps)
    with TemporaryDirectory() as folder:
        latents = made_up_latents(Path(folder) / "latents", length, vae.model.latent_size, labels)
        traced = made_up_tracings(latents)
        image, video = LidmTask(lidm, latents, latents), LvdmTask(lvdm, [latents], [latents])
        tasks: dict[str, tuple[Task, LoopConfig]] = {
            "beats": (LvAreaTask(beats, traced, traced), beats.loop),
            "train_vae": (VaeTask(vae, [frames], [frames]), vae.loop),
            "train_lidm": (image, lidm.loop),
            "train_reid": (ReidTask(reid, latents, latents), reid.loop),
            "train_lvdm": (video, lvdm.loop),
            "train_ef": (EfTask(ef, [frames], [frames]), ef.loop),
        }
        labelled = Labelled(frames, np.arange(VIDEOS) % 2 > 0, frames.table["FileName"].to_numpy())
        tasks["classify"] = ClassifierTask(classify, [labelled], [labelled]), classify.loop
        hearts, clips = image.build(), video.build()
        made: dict[str, nn.Module] = {"train_lidm": hearts, "train_lvdm": clips}
        made |= {name: task.build() for name, (task, _) in tasks.items() if name not in made}
        if lvdm.objective == "flow" and lvdm.layout == "own":
            teacher = Path(folder) / "teacher"
            clips.save(teacher)
            video.objective.save(teacher)
            student = DistillTask(distill, teacher, lvdm, [latents], [latents])
            tasks["distill_lvdm"] = student, distill.loop
            made["distill_lvdm"] = student.build()
        steps = [
            Rehearsed(stage, step_probe(task, made[stage], loop, params.seed), loop.precision)
            for stage, (task, loop) in tasks.items()
        ]
        shape = (16, ef.frames, FRAME_SIZE, FRAME_SIZE)
        codec = VideoCodec(Vae.create(vae.model), encode.batch, "fp32")
        passes = [
            Rehearsed("encode", codec.probe(), encode.precision),
            Rehearsed("sample_hearts", heart_probe(hearts.eval()), "auto"),
            Rehearsed("sample_videos", window_probe(clips.eval()), "auto"),
            Rehearsed("evaluate", clip_probe(made["train_ef"].eval(), shape), "auto"),
        ]
        yield [*steps, *passes]


def made_up_frames(length: int, fps: float) -> FrameSet:
    """Noise with labels, as frames at `fps`."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (VIDEOS * length, FRAME_SIZE, FRAME_SIZE), np.uint8)
    lengths = np.full(VIDEOS, length)
    return FrameSet(data, _table(length, fps), np.cumsum(lengths) - lengths, lengths, fps)


def made_up_latents(folder: Path, length: int, side: int, labels: set[str]) -> LatentSet:
    """Unit noise, as latents (length, 4, side, side), written to `folder`; labelled with EF, with a
    class, or with both, as the project's datasets are.
    """
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    table = _table(length, 16.0).assign(Shard="noise.safetensors")
    if "class" in labels:
        table[CLASS] = [CLASSES[i % 2] for i in range(VIDEOS)]
    if "ef" not in labels:
        table["EF"] = np.nan
    shape = (length, 4, side, side)
    write_shard(
        folder / "noise.safetensors",
        {
            name: pack(torch.randn(shape, generator=generator), torch.full(shape, -5.0))
            for name in table["FileName"]
        },
    )
    write_index(folder, table)
    return LatentSet(folder)


def made_up_tracings(latents: LatentSet) -> Traced:
    """The first two frames of every video, end-diastole and end-systole."""
    rows = np.repeat(np.arange(VIDEOS), 2)
    number = np.tile([0, 1], VIDEOS)
    frames = torch.cat([latents.mean(v, 0, 2) for v in range(VIDEOS)])
    return Traced(frames, 30.0 - 5 * number, rows, number, number == 0)


def _table(length: int, fps: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "FileName": [f"noise{i}" for i in range(VIDEOS)],
            "EF": np.linspace(20, 80, VIDEOS),
            "Split": "TRAIN",
            "FPS": fps,
            "NumberOfFrames": length,
        }
    )
