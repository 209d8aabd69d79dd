"""Learning to find anomalies that were made, selected by kinds that are not learned from."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echosyn.anomaly.kinds import KINDS, Source, make
from echosyn.data.frames import FrameSet
from echosyn.data.spaced import evenly_spaced
from echosyn.data.video import resample_indices
from echosyn.metrics.roc import Roc
from echosyn.models.anomaly import AnomalyNet, as_input, clip_scores, halved
from echosyn.models.small_unet import GROUP
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.training.loop import LoopConfig

TURN, ZOOM, SHIFT = 4.0, 0.05, 1.5  # degrees, share, pixels: how far a clip is moved, at most
GAMMA, GAIN = 0.3, 0.2  # of brightness: the logarithm of an exponent, and a share
BLUR, NOISE = 0.8, 4.0  # pixels, grey levels: at most
MOST = 2  # anomalies in a training clip
RARE = 10.0  # how much more a changed pixel weighs
BATCH = 16  # clips through the network at once


@dataclass(frozen=True)
class AnomalyConfig:
    """An entry of section `anomaly`, over conf/<scale>/train_anomaly.yaml."""

    loop: LoopConfig
    width: int = setting(16, lo=8, help="channels of the first of three levels")
    window: int = setting(16, lo=4, hi=64, help="frames of a clip: about a beat")
    fps: float = setting(16.0, lo=4.0, hi=64.0, help="frames per second that the network sees")
    held_out: tuple[str, ...] = setting(
        ("wall", "frozen"), choices=tuple(KINDS), help="kinds that validate and are not learned"
    )
    measured: int = setting(40, lo=5, help="videos of TEST, or drawn, with an anomaly of each kind")
    least: float = setting(
        0.55, lo=0.0, hi=1.0, help="AUROC on VAL that each kind held out must reach, or no gate"
    )

    @property
    def learned(self) -> tuple[str, ...]:
        return tuple(kind for kind in KINDS if kind not in self.held_out)

    def check(self) -> str | None:
        if self.width % GROUP:
            return f"width {self.width} is no multiple of {GROUP}"
        if not self.held_out:
            return (
                "held_out is empty: no anomaly kind is left for validation, and nothing would tell "
                f"whether the detector finds what it never saw: name some of {', '.join(KINDS)}"
            )
        if not self.learned:
            return (
                f"held_out names all kinds ({', '.join(KINDS)}): none is left to learn from: take "
                "some out"
            )
        return None


@dataclass(frozen=True, eq=False)
class Clips:
    """Real videos at the rate of the network, all of at least its window."""

    videos: FrameSet
    fps: float
    window: int

    @classmethod
    def of(cls, frames: FrameSet, split: str, cfg: AnomalyConfig) -> "Clips":
        """The videos of a split that are as long as the window.

        Raises:
            EchosynError: fewer than two are.
        """
        videos = frames.split(split)
        seen = [len(resample_indices(int(n), frames.fps, cfg.fps)) for n in videos.lengths]
        long = videos.take(np.flatnonzero(np.array(seen, int) >= cfg.window))
        if len(long) < 2:
            raise EchosynError(
                f"{len(long)} of {len(videos)} {split} videos have {cfg.window} frames at "
                f"{cfg.fps:g} a second, and the anomaly detector needs 2 or more: lower `window` "
                f"in conf/<scale>/train_anomaly.yaml, or put longer videos into {split}"
            )
        return cls(long, cfg.fps, cfg.window)

    def __len__(self) -> int:
        return len(self.videos)

    def video(self, i: int) -> np.ndarray:
        """uint8 (T, H, W), at `fps`."""
        own = self.videos.video(i)
        return own[resample_indices(len(own), self.videos.fps, self.fps)]

    def source(self, i: int, rng: np.random.Generator, varied: bool) -> Source:
        """A clip of video i, halved, from anywhere in it, and one of another video.

        Args:
            varied: both moved and of another brightness, each as a whole.
        """
        other = int((i + rng.integers(1, len(self))) % len(self))
        video, foreign = (halved(self.video(v)) for v in (i, other))
        start, at = (int(rng.integers(len(v) - self.window + 1)) for v in (video, foreign))
        foreign = foreign[at : at + self.window]
        as_seen = _moved if varied else _as_it_is
        return Source(as_seen(video, rng), start, self.window, as_seen(foreign, rng))


def _as_it_is(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return frames.astype(np.float32)


def _moved(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    h, w = frames.shape[1:]
    turn, zoom = rng.uniform(-TURN, TURN), 1 + rng.uniform(-ZOOM, ZOOM)
    move = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), turn, zoom)
    move[:, 2] = move[:, 2] + rng.uniform(-SHIFT, SHIFT, 2)
    gamma, gain = np.exp(rng.uniform(-GAMMA, GAMMA)), 1 + rng.uniform(-GAIN, GAIN)
    level = np.minimum(255 * gain * (np.arange(256) / 255) ** gamma, 255).astype(np.float32)
    return np.stack([cv2.warpAffine(f, move, (w, h)) for f in level[frames]])


def blurred(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clips (N, T, h, w) as another machine, or a generator, would show them, one like the other:
    sharper or not, more or less noisy. So texture does not tell sound clips from others."""
    sigma, noise = rng.uniform(0, BLUR), rng.uniform(0, NOISE)
    if sigma > 0.3:
        clips = np.array([[cv2.GaussianBlur(f, (0, 0), sigma) for f in clip] for clip in clips])
    return np.clip(clips + noise * rng.standard_normal(clips.shape, np.float32), 0, 255)


class AnomalyTask:
    """Clips of TRAIN, some with an anomaly; see echosyn.training.loop.Task."""

    def __init__(self, cfg: AnomalyConfig, train: Clips, val: Clips) -> None:
        self.cfg, self.train = cfg, train
        made = [made_clips(val, kind, cfg.measured, 0) for kind in (None, *cfg.held_out)]
        self.val_clips = np.concatenate([clips for clips, _ in made])
        self.val_labels = torch.cat([labels for _, labels in made])

    @property
    def size(self) -> int:
        return len(self.train)

    def build(self) -> AnomalyNet:
        return AnomalyNet(self.cfg.width, self.cfg.window, self.cfg.fps)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """Of each item a clip without an anomaly and with one: x (B, 2, window, h, w) and target
        (B, 2, h, w)."""
        pairs, labels = [], []
        for i in indices:
            source = self.train.source(int(i), rng, varied=True)
            count = int(rng.integers(1, min(MOST, len(self.cfg.learned)) + 1))
            some = rng.choice(self.cfg.learned, count, replace=False)
            clip, target = make(some.tolist(), source, rng)
            pairs.append(blurred(np.stack([source.clip, clip]), rng))
            labels.append(np.stack([np.zeros_like(target), target]))
        return {"x": as_input(np.stack(pairs)), "target": torch.from_numpy(np.stack(labels))}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """That of the maps and the scores, and of how pairs are ordered: the same clip with an
        anomaly must score higher than without, the more the better it is seen."""
        target = batch["target"].flatten(0, 1)[:, None]
        logits = model(batch["x"].flatten(0, 1)).float()
        loss, parts = _loss(logits, target)
        sound, strange = clip_scores(logits).view(-1, 2).T
        seen = clip_scores(target).view(-1, 2)[:, 1]
        pairs = (F.softplus(sound - strange) * seen).mean()
        return loss + pairs, {**parts, "pairs": pairs}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """On clips of VAL, sound and of the kinds held out: their mean AUROC and the least; one
        less the mean, which is the loss; and the loss of training."""
        logits = maps_of(model, self.val_clips)
        sound, *kinds = np.split(clip_scores(logits).numpy(), len(self.cfg.held_out) + 1)
        found = [Roc(kind, sound).auc() for kind in kinds]
        mean, fit = float(np.mean(found)), float(_loss(logits, self.val_labels)[0])
        return {"loss": 1 - mean, "auroc": mean, "least_auroc": min(found), "fit": fit}


def _loss(logits: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the maps, in which changed pixels are few and weigh more, and of the scores,
    which are trained as they are used."""
    pixels = F.binary_cross_entropy_with_logits(logits, target, weight=1 + RARE * target)
    clips = F.binary_cross_entropy_with_logits(clip_scores(logits), clip_scores(target))
    return pixels + clips, {"pixels": pixels, "clips": clips}


def made_clips(clips: Clips, kind: str | None, most: int, seed: int) -> tuple[np.ndarray, Tensor]:
    """Clips uint8 (N, window, h, w) of up to `most` of the videos, with an anomaly of a kind (None:
    with none), and labels (N, 1, h, w). The same each time, and of the same clips for all
    kinds."""
    made, labels = [], []
    number = 0 if kind is None else 1 + list(KINDS).index(kind)
    for i in np.unique(evenly_spaced(len(clips), min(most, len(clips)))):
        source = clips.source(int(i), np.random.default_rng([seed, 6, i]), varied=False)
        clip, target = source.clip, np.zeros(source.clip.shape[1:], np.float32)
        if kind is not None:
            clip, target = make([kind], source, np.random.default_rng([seed, 7, number, i]))
        made.append(clip.round().astype(np.uint8))
        labels.append(target)
    return np.stack(made), torch.from_numpy(np.stack(labels))[:, None]


@torch.no_grad()
def maps_of(model: nn.Module, clips: np.ndarray) -> Tensor:
    """Maps of logits of clips uint8, on the CPU."""
    device = next(model.parameters()).device
    parts = (as_input(clips[i : i + BATCH]) for i in range(0, len(clips), BATCH))
    return torch.cat([model(part.to(device)).float().cpu() for part in parts])
