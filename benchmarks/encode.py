"""Encoding a dataset, from AVI files to finished shards, against the bare VAE.

- ours: `VideoFolder` and `encode_shard`, in which decoding, the VAE and writing overlap: latents,
  reconstructed AVIs, PSNR and SSIM;
- in turn: the same work one step after the other, from a frame cache that is filled first;
- bare: the VAE alone, each video encoded to mean and log-variance and the mean decoded, from
  frames in memory, in the same batches and threads: the baseline of the line of JSON.

The VAE is the demo's with random weights, on the GPU where there is one. On a CPU the rest takes
from the VAE's own cores, so that bare is out of reach: the benchmark prints what each part costs
and what would be left if no core ever waited.

python -m benchmarks.encode
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np

from benchmarks.harness import conclude, disagree, time_in_turns, use_threads

THREADS = 2
use_threads(THREADS)

import pandas as pd  # noqa: E402
import torch  # noqa: E402

from echosyn.data.frames import VideoFolder, load_frames  # noqa: E402
from echosyn.data.latents import pack, write_shard  # noqa: E402
from echosyn.data.phantom import PhantomConfig, write_dataset  # noqa: E402
from echosyn.data.video import write_video  # noqa: E402
from echosyn.encoding.codec import EncodeConfig, VideoCodec  # noqa: E402
from echosyn.encoding.encode import encode_shard  # noqa: E402
from echosyn.metrics.image import psnr_db, ssim  # noqa: E402
from echosyn.models.vae import Vae, VaeConfig  # noqa: E402
from echosyn.runtime.config import build, read_yaml  # noqa: E402
from echosyn.runtime.device import autocast, set_threads  # noqa: E402
from echosyn.runtime.files import write_text  # noqa: E402
from echosyn.runtime.shards import Make, Shard, plan_shards, run_shards  # noqa: E402

VIDEOS, FRAMES, FPS = 16, 128, 32.0
CONFIG = EncodeConfig(fps=16.0, shard=8)
REPEATS = 3
DEMO = Path(__file__).parents[1] / "conf/demo/train_vae.yaml"


def in_turn(codec: VideoCodec, frames: object, rows: range, folder: Path) -> None:
    """The files of `encode_shard`, one step after the other."""
    latents, quality = {}, []
    shard = f"latents-{rows.start:06d}.safetensors"
    for v in rows:
        name, original = frames.table["FileName"][v], frames.video(v)
        latents[name] = pack(*codec.encode(original))
        decoded = codec.decode(latents[name][:, :4].float())
        write_video(folder / f"{name}.avi", decoded, frames.fps)
        measured = {"psnr_db": psnr_db(original, decoded), "ssim": ssim(original, decoded)}
        quality.append({"FileName": name, **measured, "Shard": shard})
    write_shard(folder / shard, latents)
    write_text(folder / "quality.csv", pd.DataFrame(quality).to_csv(index=False))


def files(shards: list[Path]) -> dict[str, bytes]:
    found = sorted(p for shard in shards for p in shard.iterdir())
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in found}


def agreement(ours: dict[str, bytes], plain: dict[str, bytes]) -> str:
    """Every byte of every file."""
    if ours.keys() != plain.keys():
        disagree(f"only one side has {sorted(ours.keys() ^ plain.keys())}")
    if different := [name for name in ours if ours[name] != plain[name]]:
        disagree(f"{', '.join(different[:5])} ({len(different)} of {len(ours)} files)")
    return f"all {len(ours)} files, {sum(map(len, ours.values())):,} bytes"


def with_cpu(side: Callable[[], object], seconds: list[float]) -> Callable[[], None]:
    def timed() -> None:
        start = time.process_time()
        side()
        seconds.append(time.process_time() - start)

    return timed


def cpu_of_parts(
    codec: VideoCodec, source: VideoFolder, preloaded: list[np.ndarray], folder: Path
) -> dict[str, float]:
    """CPU seconds of each thing that is done beside the VAE, over all videos, by itself."""
    decoded = [codec.decode(codec.encode(x)[0]) for x in preloaded]
    pairs = list(zip(preloaded, decoded, strict=True))
    parts = {
        "decode AVIs": lambda: [source.video(v) for v in range(len(source))],
        "write AVIs": lambda: [write_video(folder / "v.avi", d, CONFIG.fps) for d in decoded],
        "PSNR": lambda: [psnr_db(x, d) for x, d in pairs],
        "SSIM": lambda: [ssim(x, d) for x, d in pairs],
    }
    cpu: dict[str, list[float]] = {name: [] for name in parts}
    time_in_turns([with_cpu(part, cpu[name]) for name, part in parts.items()], 3)
    return {name: statistics.median(seconds[1:]) for name, seconds in cpu.items()}


def main() -> None:
    set_threads(THREADS)
    torch.manual_seed(0)
    vae = Vae.create(build(VaeConfig, read_yaml(DEMO)["model"], str(DEMO)))
    codec = VideoCodec(vae, CONFIG.batch, CONFIG.precision)
    with tempfile.TemporaryDirectory() as tmp:
        folder, numbers = Path(tmp) / "phantom", count()
        cfg = PhantomConfig(train=VIDEOS - 2, val=1, test=1, frames=FRAMES, fps=FPS)
        write_dataset(folder, cfg, seed=0, workers=THREADS)
        source = VideoFolder.open(folder, CONFIG.fps)
        preloaded = [source.video(v) for v in range(len(source))]
        n = sum(map(len, preloaded))

        def shards() -> list[Shard]:
            return plan_shards(Path(tmp) / f"work{next(numbers)}", VIDEOS, CONFIG.shard)

        def run(make: Make) -> list[Path]:
            return run_shards(shards(), lambda: make, "encode", "video")

        def ours() -> list[Path]:
            videos = VideoFolder.open(folder, CONFIG.fps)
            return run(lambda rows, out: encode_shard(codec, videos, rows, out))

        def before() -> list[Path]:
            frames = load_frames(folder, CONFIG.fps, Path(tmp) / f"cache{next(numbers)}")
            return run(lambda rows, out: in_turn(codec, frames, rows, out))

        @torch.inference_mode()
        def bare(decode: bool = True) -> None:
            with autocast(codec.device, codec.precision):
                for video in preloaded:
                    means = []
                    for block in torch.from_numpy(video).split(CONFIG.batch):
                        mean, logvar = vae.encode(block.to(codec.device))
                        means.append(mean)
                        logvar.cpu()
                    for z in means if decode else ():
                        vae.decode(z).cpu()

        same = agreement(files(ours()), files(before()))
        sides = {
            "ours": ours,
            "in turn": before,
            "bare": bare,
            "bare, encode only": lambda: bare(decode=False),
        }
        cpu: dict[str, list[float]] = {name: [] for name in sides}
        times = time_in_turns([with_cpu(s, cpu[k]) for k, s in sides.items()], REPEATS)
        wall = {k: statistics.median(t) for k, t in zip(sides, times, strict=True)}
        print(f"{'':20} {'frames/s':>10} {'median s':>9} {'min s':>8} {'max s':>8} {'CPU s':>8}")
        for name, t in zip(sides, times, strict=True):
            spent = statistics.median(cpu[name][1:])
            row = f"{n / wall[name]:10.1f} {wall[name]:9.3f} {min(t):8.3f} {max(t):8.3f}"
            print(f"{name:20} {row} {spent:8.2f}")
        parts = cpu_of_parts(codec, source, preloaded, Path(tmp))
        for name, seconds in parts.items():
            print(f"{name:20} {1e3 * seconds / n:8.3f} ms of CPU per frame")
        if codec.device.type == "cpu":
            least = wall["bare"] + sum(parts.values()) / THREADS
            print(
                f"bare and the rest of the work on {THREADS} cores that never wait: {least:.3f} s, "
                f"ratio {wall['bare'] / least:.3f}"
            )
        print(
            f"{VIDEOS} videos, {n} frames kept of {VIDEOS * FRAMES}, {REPEATS} repeats after 1 "
            f"warm-up, {codec.device}; ours and in turn agree: {same}"
        )
        conclude("encode", ours=n / wall["ours"], baseline=n / wall["bare"], unit="frames/s", n=n)


if __name__ == "__main__":
    main()
