"""How well a detector finds anomalies, kind by kind, on people whom it never saw."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from echosyn.anomaly.kinds import KINDS
from echosyn.anomaly.task import AnomalyConfig, Clips, made_clips, maps_of
from echosyn.data.phantom import PhantomConfig, render_patient
from echosyn.data.phantom.config import STRANGE_SHAPES, STRANGE_TIMES
from echosyn.data.spaced import evenly_spaced
from echosyn.data.video import read_video, write_video
from echosyn.metrics.roc import Roc, auc_interval
from echosyn.models.anomaly import AnomalyDetector, clip_scores
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.progress import track

# Kinds that are made which show what a drawn one shows; a chamber too many is like none of them.
ALIKE = {"missing_wall": "wall", "doubled_valve": "leaflet", "frozen": "frozen",
         "reversed": "reversed"}  # fmt: skip
CHANGED, SAME = 0.5, 0.1  # labels from which a pixel counts as changed, and to which as left alone


def require_better_than_chance(auroc: float, least: float, dataset: str) -> None:
    """Raises EchosynError: a detector that would refuse videos at random."""
    if auroc < least:
        raise EchosynError(
            f"{dataset}: the anomaly detector's AUROC is {auroc:.3f} on a kind of anomaly that it "
            f"did not learn, made of VAL, below `least` {least:g}: it would refuse videos at "
            "random (0.5). Train it for longer (loop.steps in conf/<scale>/train_anomaly.yaml), "
            f"hold out other kinds, or take {dataset} out of `anomaly` in params.yaml"
        )


def made_numbers(net: nn.Module, test: Clips, cfg: AnomalyConfig, seed: int) -> dict[str, float]:
    """`anomaly/unseen_<kind>/auroc` and `anomaly/learned_<kind>/auroc`: clips of TEST with an
    anomaly made of each kind, held out of training or not, against all sound ones, with intervals;
    and `.../pixel_auroc`, of the map, changed pixels against others, mean over clips."""
    sound = _scores(maps_of(net, made_clips(test, None, len(test), seed)[0]))
    numbers: dict[str, float] = {}
    for kind in track(list(KINDS), "anomalies made of TEST", "kind"):
        x, target = made_clips(test, kind, cfg.measured, seed)
        maps = maps_of(net, x)
        name = f"anomaly/{'unseen' if kind in cfg.held_out else 'learned'}_{kind}"
        numbers |= auc_interval(_scores(maps), sound, seed).flat(f"{name}/auroc")
        found = [_pixels(m, t) for m, t in zip(maps.numpy(), target.numpy(), strict=True)]
        if known := [value for value in found if value is not None]:
            numbers[f"{name}/pixel_auroc"] = float(np.mean(known))
    return numbers


def _scores(maps: Tensor) -> np.ndarray:
    return clip_scores(maps).numpy()


def _pixels(logits: np.ndarray, target: np.ndarray) -> float | None:
    changed, same = logits[target >= CHANGED], logits[target <= SAME]
    return Roc(changed, same).auc() if len(changed) and len(same) else None


def drawn_numbers(
    detector: AnomalyDetector, test: Clips, phantom: PhantomConfig, cfg: AnomalyConfig, seed: int
) -> dict[str, float]:
    """`anomaly/unseen_drawn_<kind>/auroc`, or `learned_drawn_`: TEST patients of the phantom drawn
    anew with each of its strange kinds, as videos, against TEST's own, with intervals."""
    sound = np.array([detector.score(test.video(i), test.fps) for i in range(len(test))])
    kinds = (*(STRANGE_SHAPES if phantom.view == "a4c" else ()), *STRANGE_TIMES)
    numbers: dict[str, float] = {}
    for kind in track(kinds, "anomalies drawn", "kind"):
        videos = drawn_videos(phantom, kind, cfg.measured, seed)
        scores = np.array([detector.score(video, phantom.fps) for video in videos])
        seen = "learned" if ALIKE.get(kind) in cfg.learned else "unseen"
        numbers |= auc_interval(scores, sound, seed).flat(f"anomaly/{seen}_drawn_{kind}/auroc")
    return numbers


def drawn_videos(cfg: PhantomConfig, kind: str, most: int, seed: int) -> Iterator[np.ndarray]:
    """Videos uint8 (T, H, W) of up to `most` of the phantom's TEST patients, strange in one way, as
    they come out of a file."""
    first = cfg.train + cfg.val
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.avi"
        for i in np.unique(evenly_spaced(cfg.test, min(most, cfg.test))):
            write_video(path, render_patient(first + int(i), cfg, seed, kind).frames, cfg.fps)
            yield read_video(path)[0]
