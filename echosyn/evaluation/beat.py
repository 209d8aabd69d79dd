"""How synthetic hearts beat: their rates, and how much they move, beside real ones."""

from pathlib import Path

import numpy as np
from torch import Tensor

from echosyn.beat.curve import fit_beats
from echosyn.beat.lv_area import area_curve, load_area
from echosyn.data.filelist import HEART_RATE
from echosyn.data.frames import FrameSet
from echosyn.data.latents import LatentSet
from echosyn.encoding.codec import VideoCodec
from echosyn.metrics.interval import Estimate, percentile_interval, resample_counts
from echosyn.runtime.progress import bar

QUARTILES = {"rate_q25": 0.25, "rate_median": 0.5, "rate_q75": 0.75}


class BeatEvaluation:
    """Rates by the area of the left ventricle, and the variance of latents within a video.

    Both sides are seen through the same VAE and the same area network, which learned from TRAIN's
    traced frames (echosyn.beat.lv_area), over as many frames.

    Args:
        beats: the folder of the stage beats. Without a network in it (a dataset that is not
            traced) rates are left out.
    """

    def __init__(self, codec: VideoCodec, beats: Path, resamples: int, seed: int) -> None:
        self.codec, self.area = codec, load_area(beats)
        self.resamples, self.seed = resamples, seed

    def measure(self, real: LatentSet, synthetic: FrameSet) -> dict[str, float]:
        """Flat metrics, `beat/...`, of synthetic videos; `_real` are of `real`, TEST.

        - `rate_q25`, `rate_median`, `rate_q75`: beats a minute of the videos whose beat is sure;
        - `sure`: their share;
        - `rate_off`: percent, median of how far a rate is from the one asked for (FileList's
          HeartRate);
        - `motion`: mean variance of latents within a video, over that of real ones.

        Args:
            synthetic: at the frame rate of `real`.
        """
        n, m = len(synthetic), len(real)
        frames = int(min(synthetic.lengths.min(), real.lengths.min()))
        moved = {"": np.empty(n), "_real": np.empty(m)}
        curves: dict[str, list[np.ndarray]] = {"": [], "_real": []}

        def look(side: str, i: int, z: Tensor) -> None:
            z = z[:frames]
            moved[side][i] = float(z.double().var(dim=0, correction=0).mean())
            if self.area is not None:
                curves[side].append(area_curve(self.area, z))

        with bar(n + m, "beats", "video") as progress:
            for i in range(n):
                look("", i, self.codec.encode(synthetic.video(i)[:frames])[0])
                progress.update()
            for i in range(m):
                look("_real", i, real.mean(i, 0, frames))
                progress.update()
        numbers = ratio(moved[""], moved["_real"], self.resamples, self.seed).flat("beat/motion")
        if self.area is None:
            return numbers
        for side, found in curves.items():
            rates = fit_beats(found, synthetic.fps).rate
            numbers |= rate_numbers(rates, side)
            if side == "" and HEART_RATE in synthetic.table:
                numbers |= off_numbers(rates, synthetic.table[HEART_RATE].to_numpy(np.float64))
        return numbers


def rate_numbers(rates: np.ndarray, side: str) -> dict[str, float]:
    """Share and quartiles of rates (N,), NaN where the beat is not sure; no quartiles of none."""
    sure = rates[np.isfinite(rates)]
    numbers = {f"beat/sure{side}": len(sure) / max(len(rates), 1)}
    if len(sure):
        numbers |= {f"beat/{k}{side}": float(np.quantile(sure, q)) for k, q in QUARTILES.items()}
    return numbers


def off_numbers(rates: np.ndarray, asked: np.ndarray) -> dict[str, float]:
    """How far rates are from those asked for, percent, of videos that have both."""
    off = 100 * np.abs(rates / asked - 1)
    off = off[np.isfinite(off)]
    return {"beat/rate_off": float(np.median(off))} if len(off) else {}


def ratio(a: np.ndarray, b: np.ndarray, resamples: int, seed: int) -> Estimate:
    """Mean of a (N,) over mean of b (M,), with its 95 % bootstrap interval; both are resampled."""
    drawn = []
    for k, x in enumerate((a, b)):
        counts = resample_counts(len(x), resamples, seed + k)
        drawn.append(np.concatenate([c @ x / len(x) for c in counts]))
    return Estimate(float(a.mean() / b.mean()), *percentile_interval(drawn[0] / drawn[1]))
