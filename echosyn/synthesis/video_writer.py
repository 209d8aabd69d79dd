"""What videos are made with: the folders of the models, and threads that write."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echosyn.data.video import write_video
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.encoding.codec import VideoCodec
from echosyn.models.speckle import Speckle
from echosyn.models.vae import Vae
from echosyn.runtime.errors import EchosynError
from echosyn.synthesis.ef_truth import EfMeter

WRITERS = 2  # threads that encode and write videos while the next ones are sampled
WAITING = 8  # videos that may wait for them


@dataclass(frozen=True)
class VideoModels:
    """The folders of what makes videos.

    regressor: the EF regressors that measure them, for `ef_truth`; image: the LIDM, for
    `image_steps`; speckle: what they are painted with.
    """

    video: Path
    vae: Path
    regressor: Path
    image: Path
    speckle: Path

    @classmethod
    def of(cls, cfg: SampleVideosConfig, root: Path, dataset: str) -> "VideoModels":
        """As the stages leave them in the folder `root`.

        Raises:
            EchosynError: the video model is not there.
        """
        found = cls(
            root / cfg.model, root / "vae", root / "ef" / dataset / "real",
            root / "lidm" / dataset, root / "speckle" / dataset,
        )  # fmt: skip
        if not found.video.is_dir():
            stage = "train_lvdm" if cfg.model == "lvdm" else "distill_lvdm"
            raise EchosynError(
                f"{found.video} does not exist: sample_videos.model is '{cfg.model}', which the "
                f"stage {stage} makes"
            )
        return found

    def read_by(self, cfg: SampleVideosConfig) -> list[Path]:
        """The folders that sampling with these settings reads."""
        folders = [self.video, self.vae]
        if cfg.speckle:
            folders.append(self.speckle)
        if cfg.ef_truth != "keep":
            folders.append(self.regressor)
        return [*folders, self.image] if cfg.image_steps else folders

    def open(
        self, cfg: SampleVideosConfig, fps: float, own_fps: float, measured: bool
    ) -> tuple[VideoSampler, VideoCodec, Speckle | None, EfMeter | None]:
        """All that a worker makes videos with.

        Args:
            fps, own_fps: as of `sampler`. measured: whether the videos have an EF to measure.
        """
        meter = None
        if measured and cfg.ef_truth != "keep":
            meter = EfMeter(self.regressor, cfg.precision)
        codec = VideoCodec(Vae.load(self.vae), precision=cfg.precision)
        speckle = Speckle.load(self.speckle) if cfg.speckle else None
        return self.sampler(cfg, fps, own_fps), codec, speckle, meter

    def sampler(self, cfg: SampleVideosConfig, fps: float, own_fps: float) -> VideoSampler:
        """The video model, ready to be asked for `fps` frames per second.

        Args:
            own_fps: of the latents that it was trained on.

        Raises:
            EchosynError: as VideoSampler; or a model not conditioned on frame rates, and another
                one than its own.
        """
        if cfg.image_steps and not self.image.is_dir():
            raise EchosynError(
                f"{self.image} does not exist: image_steps needs the image model that the stage "
                "train_lidm makes"
            )
        made = VideoSampler(self.video, cfg, self.image if cfg.image_steps else None)
        if fps != own_fps and not made.model.spec.fps:
            raise EchosynError(
                f"{self.video}: {fps:g} frames per second are asked for, but this model knows only "
                f"the latents' {own_fps:g}: set fps: 0 in sample_videos, or train it with `strides`"
            )
        return made


class VideoWriter:
    """Encodes and writes videos on threads, so that the sampler does not wait for them.

    Leaving the block waits until all are written. An exception inside it, or of a thread, ends the
    block; a thread's is raised at the next `put` or at the end.
    """

    def __init__(self, folder: Path, fps: float) -> None:
        self.folder, self.fps = folder, fps
        self.pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")
        self.pending: deque[Future[None]] = deque()

    def put(self, name: str, frames: np.ndarray) -> None:
        """Write uint8 frames (T, H, W) as <name>.avi; waits while too many others do."""
        path = self.folder / f"{name}.avi"
        self.pending.append(self.pool.submit(write_video, path, frames, self.fps))
        while self.pending and (len(self.pending) > WAITING or self.pending[0].done()):
            self.pending.popleft().result()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.pool.shutdown(cancel_futures=kind is not None)  # the folder is not left to threads
        if kind is None:
            for future in self.pending:
                future.result()
