"""Pairs of synthetic frames and masks that no label made, and what a segmenter learns from them."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from echosyn.attribution.experiment import diastolic
from echosyn.attribution.masks import cavity, find_seed, plausible
from echosyn.data.beats import draw_beats
from echosyn.data.latents import LatentSet
from echosyn.diffusion.ef_draw import draw_ef
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.sampling import sample_generators, sample_noise
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.encoding.codec import VideoCodec
from echosyn.models.published_video import load_video
from echosyn.models.segmenter import Segmenter, probabilities
from echosyn.models.speckle import Speckle
from echosyn.models.vae import Vae
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.shards import Make
from echosyn.segmentation.contour import dice
from echosyn.segmentation.task import LEAST_TRACED, TracedFrames, dice_numbers

FILE = "pairs.npz"
STREAM = 4  # of the noise
WIDE = (0.01, 0.99)  # quantiles of TRAIN's EF that are asked for beside one drawn as TRAIN's are
CYCLE = (0.25, 0.75)  # of a beat, within which end-systole is looked for
VAL = 7  # every so many hearts select


@dataclass(frozen=True)
class WeakConfig:
    """One entry of section `weak_segmentation`."""

    hearts: int = setting(lo=8, help="synthetic hearts that pairs are made of, four each")
    steps: int = setting(lo=1, help="denoising steps")
    guidance: float = setting(1.5, lo=0.0, hi=20.0, help="on EF, whose effect makes the masks")
    exact: int = setting(24, lo=0, help="real TEST hearts whose masks are held against tracings")


@dataclass(frozen=True)
class PairMaker:
    """Animates hearts at low, usual and high EF, and masks what comes of it.

    Args:
        video, vae: folders of models; speckle: of what frames are painted with, None for none.
        efs, rates: percent (N, 3) and beats a minute (N,), NaN for none, of hearts (N, 4, h, w).
    """

    video: Path
    vae: Path
    speckle: Path | None
    cfg: SampleVideosConfig
    hearts: Tensor
    efs: np.ndarray
    rates: np.ndarray
    fps: float
    seed: int

    def worker(self) -> Make:
        sampler = VideoSampler(self.video, self.cfg)
        codec = VideoCodec(Vae.load(self.vae), precision=self.cfg.precision)
        paint = Speckle.load(self.speckle).paint if self.speckle else None

        def make(rows: range, folder: Path) -> None:
            made = [self._pairs(sampler, codec, paint, i) for i in rows]
            names = ("frames", "masks", "diastole", "heart", "seeds")
            columns = [np.concatenate(column) for column in zip(*made, strict=True)]
            arrays = dict(zip(names, columns, strict=True))
            np.savez(folder / FILE, **arrays)  # type: ignore[arg-type]

        return make

    def _pairs(
        self, sampler: VideoSampler, codec: VideoCodec, paint: Callable | None, i: int
    ) -> tuple[np.ndarray, ...]:
        """End-diastole of the usual EF, and end-systole of each; of a heart that EF does not move,
        nothing. Then the heart's number for each, and its seed, (-1, -1) for none."""
        ef = torch.from_numpy(self.efs[i]).float()
        generators = sample_generators(self.seed, [i] * len(ef), STREAM)
        noise = sample_noise((self.cfg.frames, *self.hearts.shape[1:]), generators)
        per_frame = self.rates[i] / 60 / self.fps
        beat = torch.tensor([[per_frame, 0.0]]).expand(len(ef), 2)
        rows = sampler.model.spec.rows(len(ef), ef, self.fps, beat=beat)
        heart = self.hearts[i].expand(len(ef), -1, -1, -1)
        z = sampler.denoised(noise, heart, rows, generators)
        videos = np.stack([codec.decode(one) for one in z])
        seed = find_seed(videos)
        if seed is None:
            size = videos.shape[2:]
            none = np.zeros((0, *size))
            return (none.astype(np.uint8), none > 0, np.zeros(0, bool), np.zeros(0, int),
                    np.full((1, 2), -1))  # fmt: skip
        first, last = self._systole(per_frame)
        frames, masks = [], []
        for k, video in enumerate(videos):
            painted = video if paint is None else paint(video, np.random.default_rng(
                [self.seed, 11, i, k]))  # fmt: skip
            found = [cavity(video[t], seed) for t in range(first, last)]
            least = int(np.argmin([m.sum() for m in found]))
            frames.append(painted[first + least])
            masks.append(found[least])
            if k == 1:
                frames.append(painted[0])
                masks.append(cavity(video[0], seed))
        diastole = np.arange(len(frames)) == 2
        return (
            np.stack(frames),
            np.stack(masks),
            diastole,
            np.full(len(frames), i),
            np.array([seed]),
        )

    def _systole(self, per_frame: float) -> tuple[int, int]:
        """Frames of the first beat between which end-systole lies; of a beat unknown, all."""
        if not np.isfinite(per_frame):
            return 0, self.cfg.frames
        first, last = (int(share / per_frame) for share in CYCLE)
        return first, min(max(last, first + 1), self.cfg.frames)


def pair_maker(
    models: Path,
    dataset: str,
    sampling: SampleVideosConfig,
    cfg: WeakConfig,
    hearts: Tensor,
    train: LatentSet,
    seed: int,
) -> PairMaker:
    """With the models in the folder `models`, EFs and rates drawn as TRAIN's are.

    Raises:
        EchosynError: the video model was trained without EF, or the dataset has none.
    """
    net = load_video(models / "lvdm")
    known = train.ef[np.isfinite(train.ef)]
    if not net.spec.ef or not len(known):
        raise EchosynError(
            f"{dataset}: masks are made of what a video model answers to EF, but "
            f"{'no TRAIN video has one' if net.spec.ef else 'models/lvdm was trained without'}: "
            "take the dataset out of weak_segmentation in params.yaml, or train with label: ef"
        )
    middle = draw_ef("real", train.ef, len(hearts), seed)
    low, high = (np.full(len(hearts), q) for q in np.quantile(known, WIDE))
    settings = dataclasses.replace(
        sampling, model="lvdm", frames=net.window, windows="blend", steps=cfg.steps,
        guidance=cfg.guidance, image_steps=(), fps=0.0,
    )  # fmt: skip
    return PairMaker(
        models / "lvdm", models / "vae",
        models / "speckle" / dataset if sampling.speckle else None, settings, hearts,
        np.column_stack([low, middle, high]), draw_beats(train, middle, seed),
        float(train.table["FPS"].iloc[0]), seed,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Pairs:
    """Frames with masks of synthetic hearts, and the seeds of all hearts, int (N, 2), -1 where EF
    moved nothing."""

    train: TracedFrames
    val: TracedFrames
    seeds: np.ndarray
    left_out: int  # frames whose mask has an area that cannot be

    @property
    def too_few(self) -> str:
        """Why nothing can be learned from them; nothing where it can."""
        if self.train.videos >= LEAST_TRACED and self.val.videos:
            return ""
        return (
            f"EF moves the ventricle in {self.train.videos + self.val.videos} synthetic hearts "
            f"only ({LEAST_TRACED} and some to select on are needed): train the video model "
            "longer, or raise `hearts` or `guidance` under weak_segmentation in params.yaml"
        )

    @property
    def numbers(self) -> dict[str, float]:
        return {
            "hearts": self.train.videos + self.val.videos,
            "pairs": len(self.train.frames) + len(self.val.frames),
            "left_out": self.left_out,
        }

    @property
    def all(self) -> TracedFrames:
        fields = [f.name for f in dataclasses.fields(TracedFrames)]
        both = ((getattr(self.train, n), getattr(self.val, n)) for n in fields)
        return TracedFrames(*map(np.concatenate, both))


def read_pairs(folders: list[Path], synthetic: int) -> Pairs:
    """Pairs of the first `synthetic` hearts, cleaned; every VAL-th heart selects."""
    each = [np.load(folder / FILE) for folder in folders]
    whole = {name: np.concatenate([one[name] for one in each]) for name in each[0].files}
    heart, diastole, masks = whole["heart"], whole["diastole"], whole["masks"]
    kept = np.zeros(len(heart), bool)
    for of in (diastole, ~diastole):
        kept[of] = plausible(masks[of]) if of.any() else False
    mine = heart < synthetic
    names = np.array([f"heart {h}" for h in heart], str)

    def part(rows: np.ndarray) -> TracedFrames:
        return TracedFrames(whole["frames"][rows], masks[rows], diastole[rows], names[rows])

    chosen = heart % VAL == 0
    left_out = int((mine & ~kept).sum())
    return Pairs(part(mine & kept & ~chosen), part(mine & kept & chosen), whole["seeds"], left_out)


def relabelled(traced: TracedFrames, net: Segmenter) -> TracedFrames:
    """The same frames with the masks that a segmentation model finds in them."""
    return dataclasses.replace(traced, masks=probabilities(net, traced.frames) > 0.5)


def mask_scores(name: str, masks: np.ndarray, traced: TracedFrames, seed: int) -> dict[str, float]:
    """`<name>/dice`, `/dice_ed`, `/dice_es` of masks (N, H, W) against those of `traced`, with
    intervals over its videos."""
    each = np.array([dice(a, b) for a, b in zip(masks, traced.masks, strict=True)])
    return _named(name, dice_numbers(each, traced, seed))


def scores_on_test(
    tested: dict[str, np.ndarray], test: TracedFrames, seed: int
) -> dict[str, float]:
    """The same of segmenters on real TEST, of whose frames `tested` has the Dice of each; and
    `<name>/below_real/...`, how far each is below the one trained on real tracings."""
    numbers: dict[str, float] = {}
    for name, each in tested.items():
        numbers |= _named(name, dice_numbers(each, test, seed))
        if name != "real" and "real" in tested:
            below = dice_numbers(tested["real"] - each, test, seed)
            numbers |= _named(f"{name}/below_real", below)
    return numbers


def exact_scores(
    codec: VideoCodec, real: TracedFrames, seeds: np.ndarray, seed: int
) -> dict[str, float]:
    """`exact/...`: masks of real traced frames, against their tracings.

    They are found as those of synthetic frames are: through the VAE, which takes the speckle off.

    Args:
        seeds: (N, 2) of the hearts in `diastolic(real)`; frames of those without one count as 0.
    """
    heart = {name: k for k, name in enumerate(real.names[diastolic(real)])}
    smooth = codec.decode(codec.encode(real.frames)[0])
    masks = np.zeros(real.masks.shape, bool)
    for i, (frame, name) in enumerate(zip(smooth, real.names, strict=True)):
        row, column = seeds[heart[name]]
        if row >= 0:
            masks[i] = cavity(frame, (int(row), int(column)))
    return mask_scores("exact", masks, real, seed)


def grouped(numbers: dict[str, float]) -> dict[str, float]:
    """As the stage names its numbers: weak_segmentation/..."""
    return {f"weak_segmentation/{name}": value for name, value in numbers.items()}


def _named(name: str, numbers: dict[str, float]) -> dict[str, float]:
    """Under another group, and without counts."""
    return {f"{name}/{k.partition('/')[2]}": v for k, v in numbers.items() if "dice" in k}
