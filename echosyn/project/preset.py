"""Presets: settings of params.yaml that belong together, in conf/presets/<name>.yaml.

A file begins with a comment line that says what it is, and goes on with sections as params.yaml has
them. What a preset does not name stays as it is.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from echosyn.project.config_patch import set_value, unified_diff
from echosyn.runtime.config import SECTIONS, read_yaml
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text
from echosyn.runtime.text import read_text

FOLDER, PARAMS = "conf/presets", "params.yaml"
# Folders of published weights, which dvc.yaml watches; in that of the LIDM one for each dataset.
VAE, LIDM, LVDM = "weights/vae", "weights/lidm", "weights/lvdm"

Key = tuple[str, ...]


@dataclass(frozen=True)
class Preset:
    """Settings by where they are in params.yaml: (section,) or (section, key)."""

    name: str
    about: str
    settings: Mapping[Key, Any]


@dataclass(frozen=True)
class Change:
    """What a preset does to params.yaml: its text before and after, and each setting as a line."""

    before: str
    after: str
    lines: tuple[str, ...]

    @property
    def patch(self) -> str:
        """A unified diff for `git apply`; empty when nothing changes."""
        return unified_diff(self.before, self.after, PARAMS)


def all_presets(root: Path) -> list[Preset]:
    """The presets of a project, by name."""
    return [_read(path) for path in sorted((root / FOLDER).glob("*.yaml"))]


def find_preset(root: Path, name: str) -> Preset:
    """Raises EchosynError: no such preset."""
    path = root / FOLDER / f"{name}.yaml"
    names = [p.stem for p in sorted((root / FOLDER).glob("*.yaml"))]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise EchosynError(
            f"no preset '{name}'{hint} In {FOLDER}: {', '.join(names) or 'none'}; `echosyn preset` "
            "lists them"
        )
    return _read(path)


def with_weights(preset: Preset, root: Path) -> Preset:
    """The preset with published weights in place of training: those in weights/vae, weights/lvdm
    and, for every dataset of `generate`, weights/lidm/<dataset>; or, for one, the only one there.

    Raises:
        EchosynError: a folder of these is missing or empty.
    """
    datasets = read_yaml(root / PARAMS).get("generate") or []
    lidms = sorted(p.name for p in (root / LIDM).glob("*") if p.is_dir())
    lidm = f"{LIDM}/{{dataset}}"
    if len(datasets) == len(lidms) == 1:
        lidm = f"{LIDM}/{lidms[0]}"
    wanted = (VAE, *(lidm.replace("{dataset}", d) for d in datasets), LVDM)
    missing = [name for name in wanted if not any((root / name).glob("[!.]*"))]
    if missing:
        there = f" (in {LIDM}: {', '.join(lidms)})" if lidms else ""
        raise EchosynError(
            f"no weights in {', '.join(missing)}{there}: put the published ones there, or set "
            "`weights` of train_vae, train_lidm and train_lvdm by hand"
        )
    weights = {"train_vae": VAE, "train_lidm": lidm, "train_lvdm": LVDM}
    added: dict[Key, str] = {(stage, "weights"): folder for stage, folder in weights.items()}
    return replace(preset, settings={**preset.settings, **added})


def plan_change(root: Path, preset: Preset) -> Change:
    """What the preset changes in params.yaml, where comments and layout stay.

    Raises:
        EchosynError: params.yaml also has a setting that conf/<scale>/ of the preset fixes.
    """
    path = root / PARAMS
    params = read_yaml(path)
    before = read_text(path)
    after, lines = before, []
    for key, value in preset.settings.items():
        present = _present(params, key)
        if present != value:
            after = set_value(after, list(key), value)
            was = "not set" if present is None else _shown(present)
            lines.append(f"{'.'.join(key)}: {was} -> {_shown(value)}")
    _check_conf(root, yaml.safe_load(after))
    return Change(before, after, tuple(lines))


def write_change(root: Path, change: Change) -> None:
    """params.yaml as the preset wants it: whole, or as it was."""
    write_text(root / PARAMS, change.after)


def _read(path: Path) -> Preset:
    settings: dict[Key, Any] = {}
    for section, value in read_yaml(path).items():
        if section not in SECTIONS:
            near = difflib.get_close_matches(str(section), SECTIONS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise EchosynError(f"{path}: params.yaml has no section '{section}'{hint}")
        if isinstance(value, dict):
            settings |= {(section, str(key)): v for key, v in value.items()}
        else:
            settings[(section,)] = value
    first, *_ = read_text(path).splitlines() or [""]
    if not first.startswith("#"):
        raise EchosynError(f"{path}: its first line is not a comment that says what it is")
    return Preset(path.stem, first.lstrip("# "), settings)


def _present(params: Mapping[str, Any], key: Key) -> Any:
    section = params.get(key[0])
    if len(key) == 1:
        return section
    if section is not None and not isinstance(section, dict):
        raise EchosynError(f"{PARAMS}: {key[0]}: expected 'key: value', found {section!r}")
    return (section or {}).get(key[1])


def _check_conf(root: Path, params: Mapping[str, Any]) -> None:
    """A stage refuses what is set in both files; say so before params.yaml is changed."""
    for section, own in params.items():
        conf = root / "conf" / str(params.get("scale")) / f"{section}.yaml"
        if not isinstance(own, dict) or not conf.is_file():
            continue
        both = sorted(own.keys() & read_yaml(conf).keys())
        if both:
            raise EchosynError(
                f"{PARAMS}: {section}.{both[0]} is also set in {conf.relative_to(root)}, which the "
                "preset uses: take it out of params.yaml first"
            )


def _shown(value: Any) -> str:
    return yaml.safe_dump([value], default_flow_style=True, width=10**6).strip()[1:-1]
