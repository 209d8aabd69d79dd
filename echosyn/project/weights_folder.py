"""A folder of generators in the layout in which the reference publishes its own: what is in it,
what is missing, and whether it can be sampled from; and a project's networks written so.

    vae/              AutoencoderKL
    lidm_<dataset>/   UNet2DModel     (or lidm/<dataset>, as in a project's weights/)
    lvdm/             UNetSpatioTemporalConditionModel

Each has config.json and diffusion_pytorch_model.safetensors as diffusers writes them; the denoisers
have config.yaml too, whose `noise_scheduler` is the schedule that they were trained with.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from echosyn.diffusion.objectives import DdpmV, load_objective
from echosyn.models.published_image import PublishedImageDenoiser, is_own_image
from echosyn.models.published_video import PublishedVideoDenoiser, is_own
from echosyn.models.store import CONFIG, read_weights, unet_folder
from echosyn.models.vae import FRAME_SIZE
from echosyn.runtime.config import read_yaml
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, sha256_file, write_text
from echosyn.training.published import published_config
from echosyn.training.published_denoiser import fit_size
from echosyn.training.published_vae import load_published_vae

WEIGHTS, SCHEDULE = "diffusion_pytorch_model.safetensors", "config.yaml"
KINDS = {
    "vae": "AutoencoderKL",
    "lidm": "UNet2DModel",
    "lvdm": "UNetSpatioTemporalConditionModel",
}


@dataclass(frozen=True)
class Contents:
    """What a folder of weights holds.

    folders: of each network; files: sha256 by network and name, wherever the file lies; missing:
    what a test needs and is not there; notes: what is unusual, or missing and can be done without.
    """

    folders: Mapping[str, Path]
    files: Mapping[str, str]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def examine(folder: Path, dataset: str, parts: tuple[str, ...] = tuple(KINDS)) -> Contents:
    """Look for every file, and at every number in them.

    Raises:
        EchosynError: no such folder, a network of another layout or class, weights that cannot be
            read or are not finite, another noise schedule than that of the protocol.
    """
    if not folder.is_dir():
        raise EchosynError(f"{folder}: no such folder: give the one that holds vae, lidm and lvdm")
    folders = {part: _place(folder, part, dataset) for part in parts}
    files: dict[str, str] = {}
    missing, notes = [], []
    for part, place in folders.items():
        _check_layout(part, place)
        at = place if part == "vae" or not place.is_dir() else unet_folder(place)
        for name in (CONFIG, WEIGHTS):
            path = at / name
            if path.is_file():
                files[f"{part}/{name}"] = sha256_file(path)
                notes += _looked_at(path) if name == WEIGHTS else []
            else:
                missing.append(f"{path} ({KINDS[part]}){_in_its_place(at)}")
        if part == "vae":
            continue
        if (schedule := place / SCHEDULE).is_file():
            files[f"{part}/{SCHEDULE}"] = sha256_file(schedule)
            _check_schedule(schedule)
        elif place.is_dir():
            notes.append(f"{schedule} is missing: the reference's noise schedule is taken to hold")
    return Contents(folders, files, tuple(missing), tuple(notes))


def prepare(contents: Contents, out: Path) -> None:
    """Write the networks to `out` as the stages leave theirs: vae, lidm, lvdm.

    Raises:
        EchosynError: a network of another class, channels or condition, or latents of another size
            than the VAE makes.
    """
    vae = load_published_vae(contents.folders["vae"])
    size = FRAME_SIZE // (vae.patch * 2 ** (len(vae.net.config.block_out_channels) - 1))
    with atomic_dir(out) as tmp:
        vae.save(tmp / "vae")
        for part, network in (("lidm", PublishedImageDenoiser), ("lvdm", PublishedVideoDenoiser)):
            if part in contents.folders:
                folder = contents.folders[part]
                published_config(folder, KINDS[part])
                model = network.load(folder)
                fit_size(folder, model, size)
                model.save(tmp / part)


def export(models: Path, dataset: str, out: Path) -> list[str]:
    """Write the generators of a project's models/ for one dataset; returns the names of the files.

    Raises:
        EchosynError: one is not trained, or is of a layout or an objective that cannot be written
            so.
    """
    if out.exists():
        raise EchosynError(f"{out} is there already: remove it, or choose another folder")
    sources = {"vae": models / "vae", "lidm": models / "lidm" / dataset, "lvdm": models / "lvdm"}
    for part, source in sources.items():
        if not source.is_dir():
            raise EchosynError(f"{source}: no such model: run the stage train_{part}")
        _check_layout(part, source)
        published_config(source, KINDS[part])
        if part != "vae" and (found := load_objective(source).name) != DdpmV.name:
            raise EchosynError(
                f"{source}: trained with objective '{found}', but this layout is of "
                f"'{DdpmV.name}': train it with `echosyn preset reference`"
            )
    schedule = {
        k: v
        for k, v in DdpmV().scheduler("ddpm", 1).config.items()
        if v is not None and k[0] != "_"
    }
    text = yaml.safe_dump({"noise_scheduler": {"_class_name": "DDPMScheduler", **schedule}})
    with atomic_dir(out) as tmp:
        for part, source in sources.items():
            made = tmp / (f"lidm_{dataset}" if part == "lidm" else part)
            made.mkdir()
            at = source if part == "vae" else unet_folder(source)
            for name in (CONFIG, WEIGHTS):
                shutil.copyfile(at / name, made / name)
            if part != "vae":
                write_text(made / SCHEDULE, text)
    return sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())


def _place(folder: Path, part: str, dataset: str) -> Path:
    if part != "lidm":
        return folder / part
    published, own = folder / f"lidm_{dataset}", folder / "lidm" / dataset
    return own if own.is_dir() and not published.is_dir() else published


def _check_layout(part: str, place: Path) -> None:
    """Refuse a network of ours that is not of the published layout; what is absent is no such."""
    if part != "vae" and (is_own_image(place) or is_own(place)):
        raise EchosynError(
            f"{place}: expected layout 'published' ({KINDS[part]}: {CONFIG}, {WEIGHTS}), found a "
            "network of layout 'own' of this project: give published weights, or train one with "
            "`echosyn preset reference`"
        )


def _in_its_place(at: Path) -> str:
    """What is there where a file is not."""
    if not at.is_dir():
        return "; there is no such folder"
    there = sorted(p.name for p in at.iterdir())
    return f"; there is {', '.join(there)}" if there else "; the folder is empty"


def _check_schedule(path: Path) -> None:
    given: Any = read_yaml(path).get("noise_scheduler")
    if not isinstance(given, dict):
        raise EchosynError(f"{path}: no section 'noise_scheduler', which says how it was trained")
    ours = DdpmV().scheduler("ddpm", 1).config
    for key, value in given.items():
        if key in ours and key[0] != "_" and ours[key] != value:
            raise EchosynError(
                f"{path}: noise_scheduler has {key} {value}, but the protocol samples with "
                f"{ours[key]}: this network was trained for another sampler"
            )


def _looked_at(path: Path) -> list[str]:
    """What is odd about weights; EchosynError when no number can come of them."""
    notes = []
    for name, tensor in sorted(read_weights(path).items()):
        if not torch.isfinite(tensor).all():
            raise EchosynError(
                f"{path}: weight '{name}' has values that are not finite: download it again"
            )
        if tensor.ndim > 1 and not tensor.any():
            notes.append(f"{path}: weight '{name}' is zero throughout")
    return notes
