"""The test of a folder of published generators: sample by the reference's protocol, measure, and
say which of the published figures lie inside the intervals of what was measured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from echosyn.data.frames import FrameSet, load_frames
from echosyn.data.latents import LatentSet
from echosyn.data.spaced import evenly_spaced
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.heart_file import HEARTS, Hearts
from echosyn.diffusion.hearts import HeartSampler, read_shards
from echosyn.encoding.codec import VideoCodec
from echosyn.encoding.encode import encode_shard, finish_encoding
from echosyn.evaluation.config import EvaluateConfig
from echosyn.evaluation.ef import EfEvaluation
from echosyn.evaluation.protocol import ProtocolEvaluation
from echosyn.evaluation.quality import QualityEvaluation, Sets
from echosyn.metrics.feature_cache import FeatureCache
from echosyn.metrics.features import RandomFeatures2d, distance_name
from echosyn.metrics.frechet import frechet_interval
from echosyn.metrics.interval import Estimate, bootstrap_sums, percentile_interval
from echosyn.metrics.kernel import kernel_distance
from echosyn.metrics.streaming import MapRows
from echosyn.models.ef_regressor import EfRegressor
from echosyn.models.vae import Vae
from echosyn.privacy.filters.hearts import AcceptedHearts
from echosyn.project.weights_figures import (
    PUBLISHED,
    REFERENCE_EF,
    Figure,
    compare,
    differences,
    figures_of,
)
from echosyn.project.weights_folder import Contents, examine, prepare
from echosyn.project.weights_request import FPS, Request
from echosyn.runtime.code import code_digest
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json, write_json
from echosyn.runtime.process import state_root
from echosyn.runtime.shards import Make, finish, work_dir
from echosyn.synthesis.samples import finish_samples, plan_samples, sample_shard

STAGE = "weights_test"
IMAGES = "images.npy"
PER_VIDEO = 4  # frames of a real video that hearts are compared with
NETWORKS = {"inception": ("fid50k_full", "is50k"), "i3d": ("fvd2048_16f", "fvd2048_128f")}


class RunShards(Protocol):
    """As echosyn.cluster.run_shards."""

    def __call__(
        self, work: Path, items: int, size: int, worker: Callable[[], Make], stage: str, unit: str,
        label: str = "",
    ) -> list[Path]: ...  # fmt: skip


def self_test(request: Request, run_shards: RunShards, map_rows: Callable) -> dict[str, Any]:
    """Do it all; writes result.json and samples/ into `request.out`, and returns the former.

    Interrupted, the same request goes on where it was.

    Raises:
        EchosynError: a file is missing, each by name; weights that cannot be sampled from; a real
            dataset that is too small.
    """
    request.check()
    stated = _stated(request)
    contents = examine(request.folder, request.dataset, request.parts)
    if contents.missing:
        raise EchosynError("missing:\n" + "\n".join(contents.missing))
    settings = {k: str(v) for k, v in asdict(request).items() if k not in ("out", "folder")}
    code = [code_digest(stage) for stage in ("encode", "sample_videos", "evaluate")]
    inputs = [request.real / "FileList.csv", *contents.folders.values()]
    work = work_dir(state_root(), STAGE, request.dataset, [settings, code], inputs)
    test = _Test(request, contents, work, run_shards, map_rows)
    test.run()
    made = _result(test, *stated)
    write_json(request.out / "result.json", made)
    finish(work)
    return made


class _Test:
    def __init__(
        self, request: Request, contents: Contents, work: Path, run_shards: RunShards,
        map_rows: Callable,
    ) -> None:  # fmt: skip
        self.request, self.contents, self.work = request, contents, work
        self.shards = run_shards
        self.over: MapRows = partial(map_rows, work / "measures", 64, STAGE, "item")
        self.models = work / "models"
        if not self.models.is_dir():
            prepare(contents, self.models)
        self.numbers: dict[str, float] = {}
        self.why: dict[str, str] = {}

    def run(self) -> None:
        """Fill `numbers`, and `why` with what those need that were not measured."""
        request = self.request
        splits = ("TRAIN", "TEST")
        frames = state_root() / "frames"
        real = load_frames(request.real, FPS, frames, "none", splits)
        train, test = (real.split(s) for s in splits)
        latents, reconstructed = self._encoded(train)
        hearts = self._hearts(latents)
        samples = request.out / "samples"
        self._sampled(latents, hearts, samples)
        sets = Sets(train, test, reconstructed, load_frames(samples, FPS, frames, "none"))
        prefix = "lvdm" if request.hearts_from == "lidm" else "lvdm_real_hearts"
        self._published(prefix, sets, request.i3d)
        self._quality(prefix, sets)
        self._ef(samples)

    def _encoded(self, train: FrameSet) -> tuple[LatentSet, FrameSet]:
        """Latents and reconstructions of as many TRAIN videos as are sampled."""
        some = train.take(np.arange(min(len(train), self.request.videos)))
        latents, out = self.work / "latents", self.work / "reconstructed"

        def worker() -> Make:
            codec = self._codec()
            return lambda rows, folder: encode_shard(codec, some, rows, folder)

        shards = self.shards(self.work / "encoding", len(some), 32, worker, STAGE, "video", "real")
        finish_encoding(shards, some, latents, out)
        quality = pd.concat([pd.read_csv(s / "quality.csv") for s in shards])
        for key in ("psnr_db", "ssim"):
            self.numbers |= _mean(quality[key].to_numpy(), self.request.seed).flat(f"vae/{key}")
        reconstructed = load_frames(out, FPS, state_root() / "frames", "none")
        return LatentSet(latents, "TRAIN"), reconstructed

    def _codec(self) -> VideoCodec:
        return VideoCodec(Vae.load(self.models / "vae"))

    def _hearts(self, latents: LatentSet) -> Hearts:
        """What is animated: drawn and measured as pictures, or a frame of each real video."""
        request, rng = self.request, np.random.default_rng(self.request.seed)
        if request.hearts_from == "real":
            videos = np.resize(np.arange(len(latents)), request.videos)
            starts = [int(rng.integers(latents.lengths[v])) for v in videos]
            pairs = zip(videos, starts, strict=True)
            return Hearts(torch.cat([latents.mean(int(v), f, f + 1) for v, f in pairs]))
        cfg = request.hearts_config

        def worker() -> Make:
            sampler = HeartSampler(self.models / "lidm", cfg, latents)
            codec = self._codec()

            def make(rows: range, folder: Path) -> None:
                sampler.write_shard(rows, folder, request.seed)
                np.save(folder / IMAGES, codec.decode(read_shards([folder]).latents))

            return make

        work = self.work / "hearts"
        return read_shards(self.shards(work, cfg.hearts, cfg.shard, worker, STAGE, "heart", "lidm"))

    def _sampled(self, latents: LatentSet, hearts: Hearts, out: Path) -> None:
        """A dataset of the protocol's videos, each of one of the first hearts."""
        request, cfg = self.request, self.request.videos_config
        chosen = self.work / "chosen"
        chosen.mkdir(exist_ok=True)
        first = np.arange(request.videos)
        hearts.take(first).write(chosen / HEARTS, indices=torch.from_numpy(first))
        accepted = AcceptedHearts(chosen)
        plan = plan_samples("test", cfg, accepted, latents, request.seed, "none")

        def worker() -> Make:
            sampler, codec = VideoSampler(self.models / "lvdm", cfg), self._codec()
            return lambda rows, folder: sample_shard(
                sampler, codec, plan, rows, folder, request.seed
            )

        work = self.work / "videos"
        shards = self.shards(work, request.videos, cfg.shard, worker, STAGE, "video", "lvdm")
        finish_samples(shards, plan, out)

    def _images(self) -> FrameSet:
        """The hearts as videos of one frame."""
        shards = sorted((self.work / "hearts").glob(f"shard-*/{IMAGES}"))
        data = np.concatenate([np.load(path) for path in shards])[: self.request.hearts]
        names = [f"heart_{i:06d}" for i in range(len(data))]
        table = pd.DataFrame({"FileName": names, "Split": "TRAIN", "EF": np.nan})
        return FrameSet(data, table, np.arange(len(data)), np.ones(len(data), np.int64), FPS)

    def _published(self, prefix: str, sets: Sets[FrameSet], i3d: Path | None) -> None:
        """FID, IS and FVD under the names that they may carry; of hearts too, if any were drawn."""
        request = self.request
        of = {prefix: sets}
        if request.hearts_from == "lidm":
            images = self._images()
            of["lidm"] = replace(sets, synthetic=images)
            self._pictures(sets.test, images)
        for name, some in of.items():
            networks = {"inception": request.inception, "i3d": None if name == "lidm" else i3d}
            for network, keys in NETWORKS.items():
                if networks[network] is None:
                    need = f"needs the network of {network}: `echosyn weights fetch {network}`"
                    self.why |= {f"{name}/{key}": need for key in keys}

            def over(label: str, *rest: Any, name: str = name) -> np.ndarray:
                of_real = "-train-" in label  # the same frames for hearts and for videos
                return self.over(label if of_real else f"{name}-{label}", *rest)

            found = ProtocolEvaluation(
                networks["inception"], networks["i3d"], False, request.seed, over
            )
            found.measure(**vars(some))
            self._keep(name, found.numbers)
            for entry in found.protocol.values():
                skipped, short = entry.get("skipped"), entry.get("not_published_because", "")
                key = f"fvd2048_{entry.get('clip')}" if skipped else short.split(" ")[0]
                self.why[f"{name}/{key}"] = skipped or short

    def _pictures(self, test: FrameSet, images: FrameSet) -> None:
        """Distances of hearts from frames of real TEST that need no download."""
        per_video = min(PER_VIDEO, max(1, len(images) // max(len(test), 1)))
        frames = [
            test.video(v)[evenly_spaced(int(n), per_video)] for v, n in enumerate(test.lengths)
        ]
        n = min(len(images), per_video * len(test))
        groups = np.repeat(np.arange(len(test)), per_video)[:n]
        space = RandomFeatures2d()
        real, fake = space(np.concatenate(frames)[:n]), space(images.data[:n])
        for kind, distance in (("fd", frechet_interval), ("kd", kernel_distance)):
            key = f"lidm/{distance_name(kind, space, n, n)}"
            self.numbers |= distance(real, fake, groups, None).flat(key)

    def _quality(self, prefix: str, sets: Sets[FrameSet]) -> None:
        cache = FeatureCache(state_root() / "features")
        found = QualityEvaluation(EvaluateConfig(), self.request.seed, self.over, cache)
        found.measure(sets, None)
        self._keep(prefix, found.numbers)

    def _ef(self, samples: Path) -> None:
        """EF asked for against EF measured, and what the pipeline's evaluation says of the rest."""
        request = self.request
        if request.regressor is not None:
            fps = EfRegressor.load(request.regressor / "seed0").fps
            videos = load_frames(samples, fps, state_root() / "frames", "none")
            found = EfEvaluation(EvaluateConfig(), request.seed, self.over)
            found.faithfulness(request.regressor, videos)
            self._keep("", found.numbers)
        need = (
            "regressors are trained on all samples: run the pipeline with `echosyn preset "
            f"reference --weights`, and give --evaluated metrics/evaluate/{request.dataset}.json"
        )
        self.why |= {f"{REFERENCE_EF}/{key}": need for key in ("r2", "mae")}
        if request.evaluated is not None:
            numbers = read_json(request.evaluated)
            self._keep("", {k: v for k, v in numbers.items() if k.startswith(REFERENCE_EF)})

    def _keep(self, prefix: str, numbers: dict[str, Any]) -> None:
        plain = {k.removeprefix("quality/"): v for k, v in numbers.items()}
        self.numbers |= {
            f"{prefix}/{k}" if prefix else k: v for k, v in plain.items() if not isinstance(v, str)
        }


Stated = tuple[tuple[Figure, ...], Mapping[str, Any], Mapping[str, str]]


def _stated(request: Request) -> Stated:
    """The figures to compare with, the protocol and the files that they are of, where known."""
    if request.figures is not None:
        return figures_of(request.figures)
    return PUBLISHED[request.dataset], Request(Path(), Path(), Path()).protocol, {}


def _result(
    test: _Test, figures: Sequence[Figure], protocol: Mapping[str, Any], files: Mapping[str, str]
) -> dict[str, Any]:
    request, contents = test.request, test.contents
    others = [
        f"{name} is not the file that the figures are of"
        for name, sha256 in contents.files.items()
        if files.get(name, sha256) != sha256
    ]
    other_hearts = "the other kind of hearts was animated: --hearts-from"
    why = {f.key: other_hearts for f in figures if f.key.startswith("l")} | test.why
    rows = compare(figures, test.numbers, differences(request.protocol, protocol), why)
    return {
        "dataset": request.dataset,
        "seed": request.seed,
        "counts": {"hearts": request.hearts, "videos": request.videos},
        "protocol": request.protocol,
        "files": dict(contents.files),
        "notes": [*contents.notes, *others],
        "figures": [asdict(row) for row in rows],
        "numbers": test.numbers,
    }


def _mean(values: np.ndarray, seed: int) -> Estimate:
    """The mean over videos, its interval by resampling them."""
    value, drawn = bootstrap_sums(values[:, None], lambda sums: sums / len(values), 2_000, seed)
    return Estimate(float(value[0]), *percentile_interval(drawn[:, 0]))
