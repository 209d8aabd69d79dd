"""The strangest videos that were kept and refused, with their maps, for a person to look at."""

from pathlib import Path

import cv2
import numpy as np

from echosyn.data.video import read_video, resample_indices
from echosyn.models.anomaly import AnomalyDetector
from echosyn.privacy.filters.video_result import VideoFilterResult

STRANGEST = "strangest.npz"
SHOWN = 4  # of those that were refused, and of those that were kept


def write_strangest(folder: Path, result: VideoFilterResult, detector: AnomalyDetector) -> None:
    """Write `strangest.npz`, a row a video: the strangest of those that were refused as strange,
    and of those that were kept.

    Arrays names, scores and refused (N,), frames and maps uint8 (N, T, H, W), at `fps`; a map is of
    probability, 255 for 1, mean over the windows that hold a frame.
    """
    assert result.gate is not None
    assert result.scores.anomaly is not None
    score = result.scores.anomaly
    order = np.argsort(-score, kind="stable")
    refused = score >= result.gate.tau
    rows = [i for part in (refused, result.accepted) for i in order[part[order]][:SHOWN]]
    shown = [_with_map(Path(result.tried["path"].iloc[i]), detector) for i in rows]
    shortest = min((len(frames) for frames, _ in shown), default=0)
    frames, maps = (np.array([part[k][:shortest] for part in shown], np.uint8) for k in range(2))
    np.savez_compressed(
        folder / STRANGEST,
        names=result.tried["FileName"].to_numpy(str)[rows],
        scores=score[rows],
        refused=refused[rows],
        frames=frames,
        maps=maps,
        fps=detector.net.fps,
    )


def _with_map(path: Path, detector: AnomalyDetector) -> tuple[np.ndarray, np.ndarray]:
    """A video as the detector sees it, and its map of each frame, uint8 (T, H, W)."""
    video, fps = read_video(path)
    frames = video[resample_indices(len(video), fps, detector.net.fps)]
    logits, starts = detector.maps(video, fps)
    total, count = np.zeros(frames.shape, np.float32), np.zeros((len(frames), 1, 1))
    for found, start in zip(1 / (1 + np.exp(-logits)), starts, strict=True):
        window = slice(start, start + detector.net.window)
        total[window] += cv2.resize(found, frames.shape[:0:-1])
        count[window] += 1
    return frames, (255 * total / count).round().astype(np.uint8)
