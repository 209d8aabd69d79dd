"""The task of train_vae, and a VAE trained elsewhere, used as it is."""

from pathlib import Path

from echosyn.data.frames import FrameSet, load_frames
from echosyn.data.training_sets import subfolders
from echosyn.models.vae import FRAME_SIZE, INPUT_LAYOUTS, LATENT_CHANNELS, Vae
from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError
from echosyn.training.published import Untrained, published_config, weights_folder
from echosyn.training.vae import TrainVaeConfig, VaeTask


def prepare_vae(params: Params, cfg: TrainVaeConfig, cache: Path) -> tuple[VaeTask, list[Path]]:
    """The task, and what it reads of the project.

    Args:
        cache: folder that keeps decoded frames.
    """
    folders = subfolders(params, "data/train")
    sets = [load_frames(f, cfg.fps, cache, params.dataset(f.name).label) for f in folders]
    fit, held_out = ([s.split(split) for s in sets] for split in ("TRAIN", "VAL"))
    inputs = [*folders, *cfg.files]
    if cfg.weights == "none":
        return VaeTask(cfg, fit, held_out), inputs
    task = PublishedVae(cfg, fit, held_out)
    return task, [*inputs, task.folder]


class PublishedVae(Untrained, VaeTask):
    """The VAE in `cfg.weights`; its latents keep the scale that it was published with."""

    def __init__(self, cfg: TrainVaeConfig, train: list[FrameSet], val: list[FrameSet]) -> None:
        self.folder = weights_folder(cfg.weights, "train_vae")
        super().__init__(cfg, train, val)

    def build(self) -> Vae:
        """Raises EchosynError: no AutoencoderKL, or one of other latents than the settings'."""
        folder = self.folder
        vae = load_published_vae(folder)
        size = FRAME_SIZE // (vae.patch * 2 ** (len(vae.net.config.block_out_channels) - 1))
        wanted = self.cfg.model.latent_size
        if size != wanted:
            raise EchosynError(
                f"{folder}: makes latents of {size}x{size}, but `model` of train_vae those of "
                f"{wanted}x{wanted}: give `model` as many levels as it has, with its patch"
            )
        return vae


def load_published_vae(folder: Path) -> Vae:
    """Raises EchosynError: no AutoencoderKL, or one of channels that are not known."""
    facts = published_config(folder, "AutoencoderKL")
    channels = facts.get("in_channels", 3), facts.get("latent_channels", 4)
    if channels[0] not in INPUT_LAYOUTS or channels[1] != LATENT_CHANNELS:
        raise EchosynError(
            f"{folder}: a VAE of {channels[0]} input and {channels[1]} latent channels; known "
            f"are {', '.join(map(str, INPUT_LAYOUTS))} and {LATENT_CHANNELS}: choose another "
            "model, or train one with weights: none"
        )
    return Vae.load(folder)
