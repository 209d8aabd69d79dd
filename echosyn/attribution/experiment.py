"""What a video model answers to the cells of a design, one heart at a time."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from echosyn.attribution.design import HEART, NOISE, AttributionConfig, Design
from echosyn.data.latents import LatentSet
from echosyn.data.spaced import evenly_spaced
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.sampling import sample_generators, sample_noise
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.diffusion.student import read_student
from echosyn.encoding.codec import VideoCodec
from echosyn.models.published_video import load_video
from echosyn.models.segmenter import Segmenter
from echosyn.models.vae import Vae
from echosyn.runtime.device import pick_device
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json
from echosyn.runtime.shards import Make
from echosyn.segmentation.files import NONE
from echosyn.segmentation.task import TracedFrames, traced_frames
from echosyn.segmentation.trace import trace

FILE = "answers.npz"
COARSE = 28  # pixels' side of the frames whose variance is taken apart
STREAM = 2  # of the noise; those of hearts and of released videos are others
GROUPS = ("early", "middle", "late")  # thirds of the denoising, from pure noise on
LEVELS = (0.9, 0.7, 0.5, 0.3, 0.1)  # noise at which the gradient is taken, 1 being nothing else


@dataclass(frozen=True, eq=False)
class Hearts:
    """Latents (N, 4, h, w) of real frames at end-diastole, and of each the ventricle's place, bool
    (N, H, W), where the dataset is traced."""

    latents: Tensor
    regions: np.ndarray | None

    def __len__(self) -> int:
        return len(self.latents)


def real_hearts(
    data: Path, test: LatentSet, codec: VideoCodec, most: int, ventricle: bool
) -> Hearts:
    """Up to `most` hearts of TEST, spread evenly: traced frames, encoded, with their tracings; or
    without `ventricle` the latents' own.

    Raises:
        EchosynError: nothing is traced, or frames of another size than the VAE's, or one heart.
    """
    if not ventricle:
        rows = np.unique(evenly_spaced(len(test), min(most, len(test))))
        found = Hearts(torch.cat([test.hearts(int(i), 1) for i in rows]), None)
    else:
        traced = traced_frames(data, "TEST", most)
        if not traced.videos:
            raise EchosynError(
                f"{data}: no video of TEST is traced, so nothing tells where the ventricle is: add "
                "VolumeTracings.csv and ingest again, or set ventricle: false under attribution in "
                "params.yaml"
            )
        rows = diastolic(traced)
        found = Hearts(codec.encode(traced.frames[rows])[0], traced.masks[rows])
    if len(found) < 3:
        raise EchosynError(
            f"{data}: {len(found)} hearts of TEST, but attribution compares three or more: put "
            "more patients into TEST, or raise `hearts` under attribution in params.yaml"
        )
    return found


def diastolic(traced: TracedFrames) -> np.ndarray:
    """Rows of the end-diastolic frame of each video, in the order of the videos."""
    rows = np.flatnonzero(traced.diastole)
    return rows[np.sort(np.unique(traced.names[rows], return_index=True)[1])]


def video_settings(
    cfg: AttributionConfig, sampling: SampleVideosConfig, folder: Path
) -> list[SampleVideosConfig]:
    """Settings for videos of one window of the model in `folder`, at each guidance to compare; a
    student's guidance and steps are its own."""
    student = read_student(folder)
    plain = dataclasses.replace(
        sampling, model=cfg.model, frames=load_video(folder).window, windows="blend",
        steps=max(student.steps) if student else cfg.steps, image_steps=(),
        heart_guidance=student.heart_guidance if student else sampling.heart_guidance,
    )  # fmt: skip
    guidance = (student.guidance,) if student else cfg.guidance
    return [dataclasses.replace(plain, guidance=g) for g in guidance]


def measuring(folder: Path) -> Path:
    """The folder of a segmentation model, if one is there.

    Raises:
        EchosynError: the dataset has none.
    """
    if (folder / NONE).is_file():
        raise EchosynError(
            f"{folder}: no segmentation model ({read_json(folder / NONE)['reason']}), so no volume "
            "can be measured: trace more videos, or set ventricle: false under attribution in "
            "params.yaml"
        )
    return folder


@dataclass(frozen=True)
class Models:
    """Folders of the video model, of the VAE and of what measures volumes, if anything does."""

    video: Path
    vae: Path
    segmenter: Path | None

    def maker(
        self, cfg: SampleVideosConfig, design: Design, hearts: Tensor, seed: int
    ) -> Callable[[], Make]:
        """What a worker does with a shard of hearts: it writes FILE."""

        def worker() -> Make:
            codec = VideoCodec(Vae.load(self.vae), precision=cfg.precision)
            net = Segmenter.load(self.segmenter).to(pick_device()) if self.segmenter else None
            experiment = Experiment(VideoSampler(self.video, cfg), codec, design, hearts, net, seed)

            def make(rows: range, folder: Path) -> None:
                for i in rows:
                    np.savez(folder / FILE, **experiment.answer(i))  # type: ignore[arg-type]

            return make

        return worker


class Experiment:
    """Animates hearts at every cell of a design and measures what comes of it.

    Args:
        hearts: latents (N, 4, h, w). net: measures volumes; None measures none.
    """

    def __init__(
        self,
        sampler: VideoSampler,
        codec: VideoCodec,
        design: Design,
        hearts: Tensor,
        net: Segmenter | None,
        seed: int,
    ) -> None:
        self.sampler, self.codec, self.design = sampler, codec, design
        self.hearts, self.net, self.seed = hearts, net, seed
        self.cells = design.cells()
        self.rows = design.rows(sampler.model.spec, self.cells)

    def answer(self, i: int) -> dict[str, np.ndarray]:
        """What heart i does:

        - `volumes` (*shape, 2): end-diastolic and end-systolic, pixels cubed, NaN where none;
        - `motion` (*shape, T x COARSE x COARSE): grey levels less each pixel's mean over time;
        - `frames` (T, H, W): of the middle cell;
        - `space/<factor>` (H, W), `time/<factor>` (T,): variance of grey levels over the levels of
          a factor, the others held, mean over these, over time or space;
        - `steps/<condition>` (groups,): share of a condition's effect (squared change of grey
          levels, of its last level against its first) that it has when it is changed in one group
          of denoising steps alone;
        - `gradient/<condition>` (levels, h, w): root mean square over time of the derivative of the
          denoiser's output with respect to the condition, times the span of its levels, over the
          root mean square of the output; and of the heart, towards the next one.
        """
        shape = self.design.shape
        kept = self._latents(i)
        videos = np.stack([self.codec.decode(z) for z in kept])
        found: dict[str, np.ndarray] = {"volumes": self._volumes(videos).reshape(*shape, 2)}
        found["motion"] = np.stack([_motion(v) for v in videos]).reshape(*shape, -1)
        middle = self._cell({f.name: len(f.levels) // 2 for f in self.design.factors})
        found["frames"] = videos[middle]
        whole = videos.reshape(*shape, *videos.shape[1:])
        for name in (*self.design.varied, NOISE):
            others = tuple(a for a in range(len(shape)))
            change = whole.var(axis=self.design.axis(name), dtype=np.float32)
            change = change.mean(axis=others[:-1])
            found[f"space/{name}"], found[f"time/{name}"] = change.mean(0), change.mean((1, 2))
        for name in self.design.varied:
            found[f"steps/{name}"] = self._by_steps(i, name, videos)
        return found | self._gradients(i, kept[middle], middle)

    def _sampled(self, i: int, numbers: list[int], rows: Tensor | list[Tensor]) -> Tensor:
        """Videos (n, T, 4, h, w) of heart i from noises of these numbers, the same for all hearts,
        under condition rows (n, K) or such rows step by step."""
        generators, noise = self._noise(numbers)
        heart = self.hearts[i].expand(len(numbers), -1, -1, -1)
        return self.sampler.denoised(noise, heart, rows, generators)

    def _noise(self, numbers: list[int]) -> tuple[list[torch.Generator], Tensor]:
        generators = sample_generators(self.seed, numbers, STREAM)
        shape = (self.sampler.cfg.frames, *self.hearts.shape[1:])
        return generators, sample_noise(shape, generators)

    def _cell(self, at: dict[str, int]) -> int:
        places = [at.get(f.name, 0) for f in self.design.factors]
        return int(np.ravel_multi_index(places, self.design.shape))

    def _latents(self, i: int) -> Tensor:
        """Of every cell, (cells, T, 4, h, w)."""
        numbers, size = [int(c[NOISE]) for c in self.cells], self.sampler.cfg.batch
        parts = [slice(k, k + size) for k in range(0, len(numbers), size)]
        return torch.cat([self._sampled(i, numbers[p], self.rows[p]) for p in parts])

    def _volumes(self, videos: np.ndarray) -> np.ndarray:
        if self.net is None:
            return np.full((len(videos), 2), np.nan)
        return np.array([trace(self.net, v).volumes for v in videos])

    def _ends(self, name: str) -> tuple[int, int]:
        """The cells of the first and last level of a condition, at the first of all else."""
        levels = self.design.shape[self.design.axis(name)]
        return self._cell({}), self._cell({name: levels - 1})

    def _by_steps(self, i: int, name: str, videos: np.ndarray) -> np.ndarray:
        ends = self._ends(name)
        low, high = (videos[c].astype(np.float32) for c in ends)
        first, last = (self.rows[c : c + 1] for c in ends)
        steps = self.sampler.evaluations
        whole = np.square(high - low).mean()
        found = np.full(len(GROUPS), np.nan)
        for k, group in enumerate(np.array_split(np.arange(steps), len(GROUPS))):
            if len(group):
                rows = [last if e in group else first for e in range(steps)]
                z = self._sampled(i, [0], rows)[0]
                found[k] = np.square(self.codec.decode(z) - low).mean() / max(whole, 1e-9)
        return found

    def _gradients(self, i: int, z: Tensor, cell: int) -> dict[str, np.ndarray]:
        at = self.hearts[i : i + 1].clone(), self.rows[cell : cell + 1]
        still = [torch.zeros_like(x) for x in at]
        following = self.hearts[(i + 1) % len(self.hearts)]
        spans = {HEART: (following[None] - at[0], still[1])}
        for name in self.design.varied:
            first, last = self._ends(name)
            spans[name] = (still[0], (self.rows[last] - self.rows[first])[None])
        noise = self._noise([int(self.cells[cell][NOISE])])[1]
        return {
            f"gradient/{name}": np.stack([self._derivative(z, noise, at, span, u) for u in LEVELS])
            for name, span in spans.items()
        }

    @torch.no_grad()
    def _derivative(
        self,
        z: Tensor,
        noise: Tensor,
        at: tuple[Tensor, Tensor],
        span: tuple[Tensor, Tensor],
        u: float,
    ) -> np.ndarray:
        """Along a change `span` of heart and row, at noise u, float32 (h, w); see `answer`."""
        sampler, device = self.sampler, self.sampler.device
        x, _, t = sampler.objective.noisy(z[None], noise, torch.tensor([u]))
        x, t = x.to(device), t.to(device)
        extra = {}
        if sampler.student:
            extra["span"] = torch.full((1,), 1 / sampler.cfg.steps, device=device)

        def output(heart: Tensor, row: Tensor) -> Tensor:
            return sampler.model(x, t, heart, row, **extra)

        primals, tangents = (tuple(x.to(device) for x in pair) for pair in (at, span))
        with sdpa_kernel(SDPBackend.MATH):  # the others have no forward derivative
            out, change = torch.func.jvp(output, primals, tangents)[:2]
        found = change[0].square().sum(dim=1).mean(dim=0).sqrt()  # over channels, then time
        return (found / out[0].square().sum(dim=1).mean().sqrt()).float().cpu().numpy()


def _motion(video: np.ndarray) -> np.ndarray:
    small = np.stack([cv2.resize(f, (COARSE, COARSE), interpolation=cv2.INTER_AREA) for f in
                      video.astype(np.float32)])  # fmt: skip
    return (small - small.mean(axis=0)).ravel()


def read_answers(folders: list[Path]) -> dict[str, np.ndarray]:
    """Those of all hearts, in order, each array with hearts as its first axis."""
    each = [np.load(folder / FILE) for folder in folders]
    return {name: np.stack([one[name] for one in each]) for name in each[0].files}
