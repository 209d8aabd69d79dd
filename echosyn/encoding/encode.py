"""Frames through the VAE: latents to keep, reconstructions to look at and to train on.

While the VAE works on a video, threads decode those that follow and write and measure those that
are through. What waits is bounded, however many videos there are.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from safetensors import safe_open
from torch import Tensor

from echosyn.data.content import write_content
from echosyn.data.filelist import write_filelist
from echosyn.data.latents import pack, write_index, write_shard
from echosyn.data.video import open_video, write_video
from echosyn.encoding.codec import VideoCodec
from echosyn.metrics.image import psnr_db, ssim
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, write_text
from echosyn.runtime.parallel import ahead, cores_apart
from echosyn.runtime.process import cores
from echosyn.runtime.shards import gather

AHEAD = 2  # videos per thread that may wait for the VAE, and as many that may wait to be written


class Recordings(Protocol):
    """Videos to encode; echosyn.data.frames.FrameSet is one, VideoFiles another."""

    @property
    def table(self) -> pd.DataFrame: ...  # the FileList
    @property
    def fps(self) -> float: ...

    def __len__(self) -> int: ...

    def video(self, i: int) -> np.ndarray:
        """Frames of video i, uint8 (T, H, W); called from several threads at once."""


@dataclass(frozen=True, eq=False)
class Coded:
    """A video that went through the VAE."""

    name: str
    original: np.ndarray  # uint8 (T, H, W)
    latents: Tensor  # as `pack` makes them
    decoded: np.ndarray  # uint8 (T, H, W)


@dataclass(frozen=True, eq=False)
class Kept:
    """What is left of a video whose reconstruction is written."""

    name: str
    size: tuple[int, ...]  # (H, W)
    latents: Tensor
    quality: dict[str, object]


def encode_shard(codec: VideoCodec, videos: Recordings, rows: range, folder: Path) -> None:
    """Latents, reconstructed videos and their quality for some videos, as files in `folder`.

    On a GPU one thread feeds it while others decode and write. On a CPU every thread takes a video
    through all steps by itself: threads that share a convolution wait for each other.

    Raises:
        EchosynError: a video cannot be read or written, or sizes differ within the shard.
    """
    shard = f"latents-{rows.start:06d}.safetensors"
    names = videos.table["FileName"]
    latents: dict[str, Tensor] = {}

    def code(v: int, original: np.ndarray) -> Coded:
        mean, logvar = codec.encode(original)
        packed = pack(mean, logvar)
        # From the stored float16, since that is what everything downstream sees.
        return Coded(names[v], original, packed, codec.decode(packed[:, : mean.shape[1]].float()))

    def keep(video: Coded) -> Kept:
        write_video(folder / f"{video.name}.avi", video.decoded, videos.fps)
        quality = {
            "FileName": video.name,
            "psnr_db": psnr_db(video.original, video.decoded),
            "ssim": ssim(video.original, video.decoded),
            "Shard": shard,
        }
        return Kept(video.name, video.original.shape[1:], video.latents, quality)

    workers = cores()
    with (
        cores_apart() if codec.shared else nullcontext(),
        ThreadPoolExecutor(workers, thread_name_prefix="encode") as pool,
    ):
        if codec.shared:
            done = ahead(pool, lambda v: keep(code(v, videos.video(v))), rows, AHEAD * workers)
        else:
            decoding = ahead(pool, videos.video, rows, AHEAD * workers)
            coded = (code(v, frames) for v, frames in zip(rows, decoding, strict=True))
            done = ahead(pool, keep, coded, AHEAD * workers)
        try:
            quality, size = [], None
            for kept in done:
                _check_size(kept.name, kept.size, size)
                size = kept.size
                latents[kept.name] = kept.latents
                quality.append(kept.quality)
        finally:  # the folder is not left to threads that still write
            pool.shutdown(cancel_futures=True)
    write_shard(folder / shard, latents)
    write_text(folder / "quality.csv", pd.DataFrame(quality).to_csv(index=False))


def _check_size(name: str, size: tuple[int, ...], others: tuple[int, ...] | None) -> None:
    if others is not None and size != others:
        raise EchosynError(
            f"video {name}: frames {size}, those before have {others}: ingest the dataset again"
        )


def finish_encoding(
    shards: list[Path], videos: Recordings, latents: Path, reconstructions: Path
) -> dict[str, float]:
    """Assemble shards into the two output folders; returns PSNR and SSIM over TEST, or over all.

    A dataset without a TEST video (a guest's few clips) is measured whole.

    Raises:
        EchosynError: sizes differ between shards.
    """
    quality = pd.concat([pd.read_csv(s / "quality.csv") for s in shards], ignore_index=True)
    lengths, (height, width) = _encoded_sizes(shards, videos.table["FileName"])
    table = videos.table.assign(
        NumberOfFrames=lengths, FPS=videos.fps, FrameHeight=height, FrameWidth=width
    )
    with atomic_dir(latents) as tmp:
        gather(shards, "*.safetensors", tmp)
        write_index(tmp, table.merge(quality[["FileName", "Shard"]], on="FileName"))
    with atomic_dir(reconstructions) as tmp:
        gather(shards, "*.avi", tmp / "Videos")
        write_filelist(tmp / "FileList.csv", table)
        write_content(tmp)
    test = (table["Split"] == "TEST").to_numpy()
    kept = quality[test] if test.any() else quality
    return {
        "vae/psnr_db": float(kept["psnr_db"].mean()),
        "vae/ssim": float(kept["ssim"].mean()),
        "vae/frames": int(lengths.sum()),
    }


def _encoded_sizes(shards: list[Path], names: pd.Series) -> tuple[np.ndarray, tuple[int, int]]:
    """Lengths int64 (V,) of the videos `names`, and their one (H, W) in pixels: from the headers of
    the latents and of the first video, so that nothing is decoded again."""
    if names.empty:
        return np.zeros(0, np.int64), (0, 0)
    shapes: dict[str, list[int]] = {}
    for path in (p for shard in shards for p in shard.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    first = names.iloc[0]
    with open_video(next(p for s in shards if (p := s / f"{first}.avi").is_file())) as video:
        size = video.height, video.width
    scale = size[0] // shapes[first][2]  # pixels per latent position, along a side
    for name in names:
        height, width = (scale * side for side in shapes[name][2:])
        _check_size(name, (height, width), size)
    return np.array([shapes[name][0] for name in names], np.int64), size
