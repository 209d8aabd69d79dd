"""Features kept by what they were computed from, so that a second evaluation reads them.

StyleGAN-V names the statistics of the real data by the dataset's path and the command's arguments:
after the videos at that path change, it goes on comparing with those of the old ones. Here a name
is a hash of the extractor's weights, of every video's bytes and of every frame number, and no path:
what changed is computed anew, and a dataset that was only moved is not.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from echosyn.metrics.extract import Clip, Videos
from echosyn.metrics.features import FeatureSpace
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import abandoned, write_bytes

FORMAT = 1  # to be raised when the same frames come to be decoded to other values
DAY_S = 86_400


class FeatureCache:
    """A folder of feature files, the least recently used removed beyond `limit_gb` (10^9 bytes)."""

    def __init__(self, folder: Path | str, limit_gb: float = 4.0) -> None:
        self.folder = Path(folder)
        self.limit_gb = limit_gb

    def get(
        self,
        space: FeatureSpace,
        videos: Videos,
        clips: Sequence[Clip],
        compute: Callable[[], np.ndarray],
    ) -> np.ndarray:
        """The features of clips as `extract` orders them, from the folder or from `compute`.

        Kept only when the videos say what they hold (`content`, str (V,)) and all features are
        finite: what went wrong once is tried again.

        Raises:
            EchosynError: the file of these features is damaged, or holds those of another extractor
                or of other clips.
        """
        content = getattr(videos, "content", None)
        if content is None:
            return compute()
        key = _key(space, videos, content, clips)
        path = self.folder / f"{space.name}-{key[:32]}.safetensors"
        if (found := _read(path, space, key)) is not None:
            return found
        features = np.ascontiguousarray(compute())
        if np.isfinite(features).all():
            write_bytes(path, save({"features": features}, _header(space, key, features)))
            self.prune()
        return features

    def prune(self) -> None:
        """Remove the least recently used files until the rest fit the limit, and what a process of
        this machine that is gone left half-written a day ago or longer. Age alone does not tell:
        the clock may have been set while another process writes."""
        for partial in self.folder.glob(".*.safetensors.partial-*"):
            old = _mtime_ns(partial) < time.time_ns() - DAY_S * 10**9
            if old and abandoned(partial):
                partial.unlink(missing_ok=True)
        files = sorted(self.folder.glob("*.safetensors"), key=_mtime_ns, reverse=True)
        total = 0
        for path in files:
            # Another process may be pruning too.
            total += path.stat().st_size if path.exists() else 0
            if total > self.limit_gb * 1e9:
                path.unlink(missing_ok=True)


def _mtime_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _key(space: FeatureSpace, videos: Videos, content: np.ndarray, clips: Sequence[Clip]) -> str:
    settings = [FORMAT, space.name, space.clip, space.sha256, float(videos.fps), len(clips)]
    h = hashlib.sha256(json.dumps(settings).encode())
    for clip in clips:
        h.update(f"\n{content[clip.video]} {len(clip.frames)} ".encode())
        h.update(np.ascontiguousarray(clip.frames, "<i8").tobytes())
    return h.hexdigest()


def _header(space: FeatureSpace, key: str, features: np.ndarray) -> dict[str, str]:
    return {
        "extractor": space.name,
        "extractor_sha256": space.sha256,
        "key": key,
        "shape": "x".join(map(str, features.shape)),
        "data_sha256": hashlib.sha256(features.tobytes()).hexdigest(),
    }


def _read(path: Path, space: FeatureSpace, key: str) -> np.ndarray | None:
    try:
        with safe_open(path, "np") as f:
            header, features = f.metadata() or {}, f.get_tensor("features")
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError) as e:
        raise EchosynError(f"{path}: this feature file is damaged ({e}): delete it") from None
    if header.get("extractor_sha256") != space.sha256:
        raise EchosynError(
            f"{path}: features of the extractor {header.get('extractor')} "
            f"{header.get('extractor_sha256', '')[:16]}, not of {space.name} {space.sha256[:16]}: "
            "the file was renamed or copied here; delete it"
        )
    if header.get("key") != key:
        raise EchosynError(
            f"{path}: features of other videos or clips: the file was renamed or copied here; "
            "delete it"
        )
    if header != _header(space, key, features):
        raise EchosynError(
            f"{path}: this feature file is damaged (its checksum differs): delete it"
        )
    with contextlib.suppress(FileNotFoundError):  # pruned by another process meanwhile
        os.utime(path)
    return features
