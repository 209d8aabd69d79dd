"""A network on disk: `config.json` says how to build it, `model.safetensors` holds its weights."""

import json
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json, write_bytes, write_json

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
# What torch and safetensors raise of a file that is cut, damaged, or none of theirs.
UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
)
AGAIN = "train or download the model again"


def save_model(folder: Path | str, model: nn.Module, config: dict[str, Any]) -> None:
    """Write `config` and the weights and buffers of `model`; the same model gives the same bytes.

    config.json goes last and its old version goes first, so that a folder whose writing was cut
    short is refused by `load_model` rather than read as a mixture.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    # No metadata: safetensors orders its keys by a hash seeded per process.
    write_bytes(folder / WEIGHTS, safetensors.torch.save(state))
    write_json(folder / CONFIG, config)


def load_model(folder: Path | str, build: Callable[[dict[str, Any]], M]) -> M:
    """Build a model from `folder`'s config and fill it with the weights there, in eval mode.

    Args:
        folder: what `save_model` wrote.
        build: makes the network from the mapping in config.json; may raise EchosynError.

    Raises:
        EchosynError: naming the file: the folder or a file is missing, the config is not a mapping
            or is refused by `build`, a weight is missing, unknown or of another shape.
    """
    folder = Path(folder)
    model = build(read_config(folder))
    fill(model, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return model.eval()


def read_sizes(kind: type[T], facts: dict[str, Any], folder: Path | str) -> T:
    """The sizes of a network, `model` in its config.json.

    Raises:
        EchosynError: they are not this network's: another version of the code saved it.
    """
    try:
        return build(kind, facts["model"], f"{folder}: config.json")
    except EchosynError as e:
        raise EchosynError(f"{e} Another version saved it: train it again") from None


def read_config(folder: Path | str) -> dict[str, Any]:
    """The mapping in a model folder's config.json.

    Raises:
        EchosynError: the folder or file is missing, or is not a JSON mapping.
    """
    path = Path(folder) / CONFIG
    if not path.parent.is_dir():
        raise EchosynError(f"{path.parent}: no such model folder; run the stage that trains it")
    try:
        config = read_json(path)
    except FileNotFoundError:
        raise EchosynError(
            f"{path} does not exist; {path.parent} is not a whole model: {AGAIN}"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise EchosynError(f"{path} is not valid JSON ({e}): {AGAIN}") from None
    if not isinstance(config, dict):
        raise EchosynError(f"{path}: expected a mapping, found {type(config).__name__}")
    return config


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Tensors by name from `.safetensors`, or from a foreign `.pt`/`.pth` without unpickling code.

    A training checkpoint is unwrapped: the mapping under `state_dict` is taken, and the `module.`
    that data-parallel training puts before each name is dropped, as in EchoNet-Dynamic's weights.

    Raises:
        EchosynError: the file is missing, damaged, or holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise EchosynError(f"{path} does not exist")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as e:
        raise EchosynError(f"{path} cannot be read as weights: {_no_weights(path, e)}") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise EchosynError(
            f"{path}: expected a mapping of names to tensors, found {type(content).__name__}: give "
            "a file of weights"
        )
    return {str(k).removeprefix("module."): v for k, v in content.items()}


def _no_weights(path: Path, e: Exception) -> str:
    """What a file is that torch and safetensors refuse for the reason `e`, and what to do."""
    with path.open("rb") as f:
        start = f.read(64).lstrip()
    if not start:
        return "it is empty: download it again"
    if start.startswith(b"version https://git-lfs"):
        return (
            "it is a pointer of Git LFS, not the file itself: run git lfs pull where it came from"
        )
    if start.lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page: download the file itself"
    if isinstance(e, pickle.UnpicklingError):  # whose own advice is to run what the file holds
        holds = re.search(r"GLOBAL ([\w.]+)", str(e))
        if holds is not None:
            return f"it holds a {holds[1]}, which could run code: save the state_dict alone"
        return f"it is damaged, or of another kind: {AGAIN}"
    return f"{str(e).splitlines()[0]}: {AGAIN}"


def fill(model: nn.Module, weights: Mapping[str, Tensor], where: Path | str) -> None:
    """Copy `weights` into `model`; every name and shape must agree.

    Raises:
        EchosynError: naming the first missing, unknown or differently shaped weight.
    """
    own = model.state_dict()
    for kind, names in (("is missing", own.keys() - weights), ("is unknown", weights.keys() - own)):
        if names:
            raise EchosynError(
                f"{where}: weight '{min(names)}' {kind} ({len(names)} such); "
                "the weights belong to another architecture"
            )
    for name, tensor in own.items():
        if tensor.shape != weights[name].shape:
            raise EchosynError(
                f"{where}: weight '{name}' has shape {tuple(weights[name].shape)}, the config "
                f"builds {tuple(tensor.shape)}"
            )
    model.load_state_dict(dict(weights))


def unet_folder(folder: Path | str) -> Path:
    """The UNet inside a model folder: `unet_ema` (published), `unet` (ours), or itself."""
    folder = Path(folder)
    for sub in ("unet_ema", "unet"):
        if (folder / sub / "config.json").is_file():
            return folder / sub
    if not folder.is_dir():
        raise EchosynError(f"{folder}: no such model folder; run the stage that trains it")
    return folder
