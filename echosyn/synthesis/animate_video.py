"""One video, any that OpenCV reads: its heart at other EFs, or the very video at them.

What `echosyn animate` does, with the models of a project.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from echosyn.data.frames import FrameSet
from echosyn.data.ingest.fit import fit_video
from echosyn.data.latents import LatentSet
from echosyn.data.video import resample_indices, write_video
from echosyn.diffusion.counterfactual import check_counterfactual, counterfactuals
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.diffusion.student import read_student
from echosyn.encoding.codec import EncodeConfig, VideoCodec
from echosyn.metrics.ef import ef_scores
from echosyn.metrics.ef_meter import CLIPS, predict_clips
from echosyn.metrics.image import ssim
from echosyn.models.ef_regressor import load_seeds
from echosyn.models.vae import Vae
from echosyn.privacy.detectors.embedding import HeartEncoder, frames_of
from echosyn.privacy.detectors.similarity import max_similarity
from echosyn.report.mosaic import webp
from echosyn.report.sheet import contact_sheet
from echosyn.runtime.config import Params, build
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, write_bytes, write_json
from echosyn.synthesis.animate import UNCHANGED

STILL = 0.9  # share of the picture that moves least, which end-diastole is not read from
TRAIN_FRAMES = 8  # of each training video that a heart is compared with


@dataclass(frozen=True)
class Request:
    """What `echosyn animate` is asked for; its --help says what each is."""

    video: Path
    efs: tuple[float, ...]  # percent
    out: Path
    frame: int | None = None  # of the file, from 0; None: the one nearest to end-diastole
    counterfactual: bool = False
    from_ef: float | None = None  # percent
    project: Path = Path()
    models: str | None = None
    model: str | None = None
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None

    def check(self) -> None:
        """Raises EchosynError for what can be seen to be wrong before anything is loaded."""
        for ef in (*self.efs, 0.0 if self.from_ef is None else self.from_ef):
            if not 0 <= ef <= 100:
                raise EchosynError(f"EF {ef:g} is outside 0-100 percent")
        if self.from_ef is not None and not self.counterfactual:
            raise EchosynError("--from-ef is the EF that --counterfactual starts from: add that")
        if not self.video.is_file():
            raise EchosynError(f"{self.video}: the video does not exist")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise EchosynError(
                f"{self.out} is there and not empty: remove it, or choose another --out"
            )


@dataclass(frozen=True, eq=False)
class Clip:
    """The video as the models see it."""

    frames: np.ndarray  # uint8 (T, 112, 112) at the latents' frame rate
    latents: Tensor  # unit scale, (T, 4, h, w)
    heart: Tensor  # unit scale, (4, h, w)
    heart_frame: int  # of the file


class Models:
    """What an animation needs of a project.

    Raises:
        EchosynError: a model is not there, naming the stage that makes it; or a setting is wrong.
    """

    def __init__(self, request: Request) -> None:
        root, models = request.project, request.project / "models"
        params = Params(root)
        self.fps = params.stage("encode", EncodeConfig).fps
        dataset = request.models or _only(models / "reid", params)
        _require(models / "vae", "train_vae")
        reid = _require(models / "reid" / dataset, f"train_reid@{dataset}")
        self.regressor = _require(models / "ef" / dataset / "real", f"train_ef@{dataset}-real")
        self.settings = _settings(params, request)
        family, _, name = self.settings.model.partition("/")
        made_by = f"distill_lvdm@{name}" if family == "distilled" else "train_lvdm"
        lvdm = _require(models / self.settings.model, made_by)
        image = models / "lidm" / dataset if self.settings.image_steps else None
        self.sampler = VideoSampler(lvdm, self.settings, image)
        self.codec = VideoCodec(Vae.load(models / "vae"), precision=self.settings.precision)
        self.encoder = HeartEncoder.load(reid)
        train = root / "latents/train" / dataset
        self.train = LatentSet(train, "TRAIN") if (train / "index.csv").is_file() else None

    def read(self, video: Path, frame: int | None) -> Clip:
        """The video, grey, 112x112, at the latents' frame rate, and its heart.

        Raises:
            EchosynError: as `fit_video`, or the video has no such frame.
        """
        fitted = fit_video(video, keep=True)
        if fitted.note:
            print(f"{video}: {fitted.note}", file=sys.stderr)
        if frame is not None and not 0 <= frame < fitted.count:
            raise EchosynError(
                f"{video}: no frame {frame}; there are {fitted.count}, counted from 0"
            )
        assert fitted.frames is not None  # they are kept
        chosen = end_diastole(fitted.frames) if frame is None else frame
        frames = fitted.frames[resample_indices(fitted.count, fitted.fps, self.fps)]
        heart = self.codec.encode(fitted.frames[chosen : chosen + 1])[0][0]
        return Clip(frames, self.codec.encode(frames)[0], heart, chosen)

    def ef(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Measured EF of clips uint8 (T, H, W) at the latents' frame rate, percent (N,).

        NaN where a clip is shorter than what the regressor looks at.
        """
        regressors = load_seeds(self.regressor)
        rate, n = regressors[0].fps, regressors[0].frames
        parts = [clip[resample_indices(len(clip), self.fps, rate)] for clip in clips]
        lengths = np.array([len(part) for part in parts])
        table = pd.DataFrame({"FileName": [str(i) for i in range(len(parts))]})
        frames = FrameSet(np.concatenate(parts), table, np.cumsum(lengths) - lengths, lengths, rate)
        videos = [(frames, i) for i in range(len(parts))]
        device, precision = self.codec.device, self.settings.precision
        found = [
            predict_clips(model.to(device), videos, n, CLIPS, show=False, precision=precision)
            for model in regressors
        ]
        means = np.mean([[some.mean() for some in each] for each in found], axis=0)
        return np.where(lengths < n, np.nan, means)

    def make(self, clip: Clip, request: Request, own_ef: float) -> dict[str, Tensor]:
        """Latent videos by what they are called in pictures and file names."""
        labels = [f"EF{ef:g}" for ef in request.efs]
        if not request.counterfactual:
            n = len(labels)
            hearts = clip.heart.expand(n, -1, -1, -1)
            efs = torch.tensor(request.efs)
            # One noise for all: they differ by the EF alone.
            videos = self.sampler.animate(hearts, efs, [0] * n, request.seed, fps=self.fps)
            return dict(zip(labels, videos, strict=True))
        asked = (own_ef, *request.efs)
        videos = counterfactuals(self.sampler, clip.latents, clip.heart, own_ef, asked, self.fps)
        return dict(zip([UNCHANGED, *labels], videos, strict=True))


def _settings(params: Params, request: Request) -> SampleVideosConfig:
    """Section sample_videos, with what a distilled model cannot change, and what is asked for."""
    values, where = params.settings("sample_videos")
    values = {**values, **({"model": request.model} if request.model else {})}
    student = read_student(params.root / "models" / values.get("model", "lvdm"))
    if student:
        learned = {"guidance": student.guidance, "heart_guidance": student.heart_guidance}
        steps = {} if values.get("steps") in student.steps else {"steps": student.steps[0]}
        values = {**values, **learned, **steps, "sampler": "euler"}
    asked = {"steps": request.steps, "guidance": request.guidance}
    asked = {key: value for key, value in asked.items() if value is not None}
    return build(SampleVideosConfig, {**values, **asked}, where)


def _require(folder: Path, stage: str) -> Path:
    if not folder.is_dir():
        raise EchosynError(f"{folder}: no such model; `dvc repro {stage}` in the project trains it")
    return folder


def _only(folder: Path, params: Params) -> str:
    """The dataset whose models are in a folder of the project."""
    found = sorted(p.name for p in folder.glob("*") if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise EchosynError(
            f"{folder}: no models here; run `dvc repro` in the project, or name it with --project"
        )
    if len(found) > 1:
        known = params.raw.get("generate") or []
        left = "".join(
            f" ({folder / name} is left over: '{name}' is not under generate in params.yaml)"
            for name in found
            if name not in known
        )
        raise EchosynError(
            f"{folder}: models of several datasets: add --models "
            f"{' or --models '.join(found)}{left}"
        )
    return found[0]


def end_diastole(frames: np.ndarray) -> int:
    """The frame of a clip (T, H, W) that looks most like end-diastole: where what moves is darkest.

    The cavity is dark and then largest. On 40 phantoms this frame's volume was always nearer to
    the largest than to the smallest; on other views it is a guess.
    """
    smooth = np.stack([cv2.GaussianBlur(f.astype(np.float32), (0, 0), 3) for f in frames])
    change = smooth.std(axis=0)
    return int(smooth[:, change >= np.quantile(change, STILL)].mean(axis=1).argmin())


def animate_video(request: Request) -> dict:
    """Make the videos, pictures and scores.json in `request.out`; returns what scores.json holds.

    Raises:
        EchosynError: what a user can mend: the video, the EFs, the project, the folder.
    """
    request.check()
    models = Models(request)
    if request.counterfactual:
        check_counterfactual(models.sampler)
    clip = models.read(request.video, request.frame)
    real_ef = float(models.ef([clip.frames])[0])
    own_ef = float(np.clip(real_ef, 0, 100)) if request.from_ef is None else request.from_ef
    if request.counterfactual and np.isnan(own_ef):
        raise EchosynError(
            f"{request.video}: {len(clip.frames)} frames at {models.fps:g} per second are too few "
            "to measure the EF that it has: give --from-ef"
        )
    models.sampler.warn(request.efs)
    try:
        made = models.make(clip, request, own_ef)
    except EchosynError as e:
        raise EchosynError(f"{request.video}: {e}") from None
    videos = {"reconstructed": models.codec.decode(clip.latents)}
    videos |= {label: models.codec.decode(z) for label, z in made.items()}
    asked = {f"EF{ef:g}": ef for ef in request.efs}
    if request.counterfactual:
        asked[UNCHANGED] = own_ef
    scores = {
        "video": request.video.name,
        "heart_frame": clip.heart_frame,
        "frames_per_second": models.fps,
        "counterfactual": request.counterfactual,
        "model": models.settings.model,
        "steps": models.settings.steps,
        "guidance": models.settings.guidance,
        "seed": request.seed,
        "ef_measured": _known(real_ef),
        **_scores(models, clip, videos, asked),
    }
    pictures = {"real": clip.frames, **videos}
    with atomic_dir(request.out) as tmp:
        for label, frames in videos.items():
            write_video(tmp / f"{request.video.stem}_{label}.avi", frames, models.fps)
        write_bytes(tmp / "sweep.webp", webp(list(pictures.values()), models.fps, len(pictures)))
        write_bytes(tmp / "sheet.png", contact_sheet(list(pictures.items())))
        write_json(tmp / "scores.json", scores)
    return scores


def _scores(
    models: Models, clip: Clip, videos: dict[str, np.ndarray], asked: dict[str, float]
) -> dict:
    """EF against the request, SSIM against the real clip, identity against it and others."""
    own = models.encoder(clip.latents)
    others = None
    if models.train is not None:
        others = models.encoder(frames_of(models.train, TRAIN_FRAMES)[0])
    rows = []
    efs = models.ef(list(videos.values()))
    for (label, frames), ef in zip(videos.items(), efs, strict=True):
        queries = models.encoder(models.codec.encode(frames)[0])
        t = min(len(frames), len(clip.frames))
        row = {
            "name": label,
            "ef_asked": asked.get(label),
            "ef_measured": _known(ef),
            "ssim": ssim(clip.frames[:t], frames[:t]),
            "ssim_reconstructed": ssim(videos["reconstructed"][:t], frames[:t]),
            "identity": float(max_similarity(queries, own)[0].mean()),
        }
        if others is not None:
            row["nearest_training"] = float(max_similarity(queries, others)[0].mean())
        rows.append(row)
    pairs = [(row["ef_asked"], row["ef_measured"]) for row in rows]
    pairs = [pair for pair in pairs if None not in pair]
    if not pairs:
        return {"made": rows}
    true, predicted = np.array(pairs).T
    found = ef_scores(true, predicted, seed=0, resamples=1)
    numbers = {f"ef_{name}": _known(found[name].value) for name in ("mae", "r2")}
    return {"made": rows, **numbers}


def _known(value: float) -> float | None:
    """As JSON has it, which knows no NaN."""
    return float(value) if np.isfinite(value) else None


def table(scores: dict) -> str:
    """The scores for a terminal."""
    names = ("", "asked", "measured", "SSIM", "identity", "nearest training")
    keys = {"ef_asked": ".1f", "ef_measured": ".1f", "ssim": ".3f", "identity": ".3f"}
    keys["nearest_training"] = ".3f"
    rows = [names]
    for made in scores["made"]:
        known = [(made.get(key), form) for key, form in keys.items()]
        rows.append((made["name"], *("" if x is None else format(x, form) for x, form in known)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(names))]
    own = scores["ef_measured"]
    measured = "too short to measure" if own is None else f"measured {own:.1f}"
    lines = [f"heart: frame {scores['heart_frame']}; its EF: {measured}"]
    lines += ["  ".join(cell.rjust(w) for cell, w in zip(r, widths, strict=True)) for r in rows]
    return "\n".join(lines)
