"""A VAE trained elsewhere, used as it is."""

from echosyn.data.frames import FrameSet
from echosyn.models.vae import FRAME_SIZE, INPUT_LAYOUTS, LATENT_CHANNELS, Vae
from echosyn.runtime.errors import EchosynError
from echosyn.training.published import Untrained, published_config, weights_folder
from echosyn.training.vae import TrainVaeConfig, VaeTask


class PublishedVae(Untrained, VaeTask):
    """The VAE in `cfg.weights`; its latents keep the scale that it was published with."""

    def __init__(self, cfg: TrainVaeConfig, train: list[FrameSet], val: list[FrameSet]) -> None:
        self.folder = weights_folder(cfg.weights, "train_vae")
        super().__init__(cfg, train, val)

    def build(self) -> Vae:
        """Raises EchosynError: no AutoencoderKL, or one of other latents than the settings'."""
        folder = self.folder
        facts = published_config(folder, "AutoencoderKL")
        channels = facts.get("in_channels", 3), facts.get("latent_channels", 4)
        if channels[0] not in INPUT_LAYOUTS or channels[1] != LATENT_CHANNELS:
            raise EchosynError(
                f"{folder}: a VAE of {channels[0]} input and {channels[1]} latent channels; known "
                f"are {', '.join(map(str, INPUT_LAYOUTS))} and {LATENT_CHANNELS}: choose another "
                "model, or train one with weights: none"
            )
        vae = Vae.load(folder)
        size = FRAME_SIZE // (vae.patch * 2 ** (len(vae.net.config.block_out_channels) - 1))
        wanted = self.cfg.model.latent_size
        if size != wanted:
            raise EchosynError(
                f"{folder}: makes latents of {size}x{size}, but `model` of train_vae those of "
                f"{wanted}x{wanted}: give `model` as many levels as it has, with its patch"
            )
        return vae
