"""The network that finds what is strange in a clip, and its scores of whole videos."""

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.data.video import resample_indices
from echosyn.models.small_unet import SmallUnet
from echosyn.models.store import load_model, save_model
from echosyn.runtime.device import pick_device
from echosyn.runtime.errors import EchosynError

STRANGEST = 0.02  # share of a map's pixels, its highest, whose mean logit is the score of a clip
OVERLAP = 2  # windows over a frame: they begin a half of one apart
BATCH = 16  # windows through the network at once
DARK = 0.08  # keeps a black clip black, where brightness is 0 .. 1
SLOPE_S = 0.19  # seconds over which a slope is taken: about half an ejection, long past flicker
STILL = 0.001  # mean square of slopes that count as none


class AnomalyNet(SmallUnet):
    """Logits that a pixel is of an anomaly: clips (B, window, h, w) of `halved` frames in 0 .. 1 to
    one map of each, (B, 1, h, w). h and w are multiples of 8.

    It is given what outlasts speckle: of each pixel the mean over the clip, the spread and the
    change from frame to frame; at half of that resolution every frame's difference from the mean,
    and how much faster a pixel brightens than it darkens, which turns round with time; and where in
    the frame a pixel lies, by which a network knows what belongs there. Brightness is relative to
    the clip's own.

    Args:
        width: channels of the first of three levels.
        window: frames of a clip, at `fps` a second.
    """

    def __init__(self, width: int, window: int, fps: float) -> None:
        still, position = 3, 6
        super().__init__(4 * still + window + 1 + position, width, nn.BatchNorm2d)
        self.width, self.window, self.fps = width, window, fps

    def forward(self, x: Tensor) -> Tensor:
        x = x / (4 * x.mean((1, 2, 3), keepdim=True) + DARK)
        mean, spread = x.mean(1, keepdim=True), 2 * x.std(1, keepdim=True)
        change = 2 * (x[:, 1:] - x[:, :-1]).abs().mean(1, keepdim=True)
        moving = F.avg_pool2d(x - mean, 2)
        lag = max(1, round(SLOPE_S * self.fps))
        slope = moving[:, lag:] - moving[:, :-lag]
        skewness = (slope**3).mean(1, keepdim=True)
        skewness = skewness / ((slope**2).mean(1, keepdim=True) + STILL) ** 1.5
        still = F.pixel_unshuffle(torch.cat([mean, spread, change], 1), 2)
        position = _position(moving).expand(len(x), -1, -1, -1)
        return super().forward(torch.cat([still, 2 * moving, skewness, position], 1))

    def save(self, folder: Path | str) -> None:
        save_model(folder, self, {"width": self.width, "window": self.window, "fps": self.fps})

    @classmethod
    def load(cls, folder: Path | str) -> "AnomalyNet":
        """Raises EchosynError: the folder does not hold a whole one."""
        return load_model(folder, lambda f: cls(f["width"], f["window"], f["fps"]))


def _position(x: Tensor) -> Tensor:
    """Across and down, each from -1 to 1 and as sine and cosine: (1, 6, h, w) for (B, C, h, w)."""
    axes = (torch.linspace(-1, 1, n, device=x.device) for n in x.shape[:1:-1])
    both = torch.stack(torch.meshgrid(*axes, indexing="xy"))
    return torch.cat([both, (np.pi * both).sin(), (np.pi * both).cos()])[None]


def halved(video: np.ndarray) -> np.ndarray:
    """Frames uint8 (T, H, W) at half their size, (T, H / 2, W / 2): speckle tells apart machines
    and generators, not hearts."""
    h, w = video.shape[1:]
    return np.stack([cv2.resize(f, (w // 2, h // 2), interpolation=cv2.INTER_AREA) for f in video])


def as_input(clips: np.ndarray) -> Tensor:
    """Clips (B, T, h, w) of 0 to 255 as the network sees them."""
    return torch.from_numpy(np.asarray(clips, np.float32) / 255)


def clip_scores(maps: Tensor) -> Tensor:
    """Of maps of logits, or of labels, (B, 1, h, w): the mean of the highest STRANGEST, (B,)."""
    flat = maps.flatten(1)
    return flat.topk(max(1, round(STRANGEST * flat.shape[1])), dim=1).values.mean(1)


class AnomalyDetector:
    """A trained AnomalyNet on the device, for videos of any length and frame rate."""

    def __init__(self, net: AnomalyNet) -> None:
        self.device = pick_device()
        self.net = net.to(self.device).eval()

    @classmethod
    def load(cls, folder: Path | str) -> "AnomalyDetector":
        return cls(AnomalyNet.load(folder))

    def frames(self, frames: int, fps: float) -> int:
        """How many the network sees of a video of so many frames.

        Raises:
            EchosynError: fewer than its window.
        """
        seen = len(resample_indices(frames, fps, self.net.fps))
        if seen < self.net.window:
            raise EchosynError(
                f"videos of {frames} frames at {fps:g} a second are {seen} at {self.net.fps:g}, "
                f"and the anomaly detector looks at {self.net.window}: lower `window` in "
                "conf/<scale>/train_anomaly.yaml, or make the videos longer"
            )
        return seen

    @torch.inference_mode()
    def maps(self, video: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
        """Maps of logits float32 (N, h, w) of a video's windows, and where these begin, int64 (N,),
        in frames at the network's rate.

        Args:
            video: uint8 (T, H, W), at `fps`.

        Raises:
            EchosynError: the video is shorter than a window.
        """
        n, window = self.frames(len(video), fps), self.net.window
        seen = halved(video[resample_indices(len(video), fps, self.net.fps)])
        count = 1 + -(-(n - window) * OVERLAP // window)
        starts = np.linspace(0, n - window, count).round().astype(np.int64)
        clips = as_input(np.stack([seen[s : s + window] for s in starts]))
        found = [self.net(part.to(self.device)).float().cpu() for part in clips.split(BATCH)]
        return torch.cat(found)[:, 0].numpy(), starts

    def score(self, video: np.ndarray, fps: float) -> float:
        """How strange a video is, a logit: that of its strangest window."""
        maps, _ = self.maps(video, fps)
        return float(clip_scores(torch.from_numpy(maps)[:, None]).max())
