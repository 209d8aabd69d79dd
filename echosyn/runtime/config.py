"""Settings: frozen dataclasses that refuse unknown keys, wrong types and impossible values.

`params.yaml` holds what a person turns; `conf/<scale>/<stage>.yaml` holds sizes. A stage's
settings are its conf file overlaid with its params section, each kept beside the code that uses
it as a dataclass whose fields are declared with `setting`.
"""

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from echosyn.runtime.errors import EchosynError
from echosyn.runtime.text import read_text, yaml_problem

T = TypeVar("T")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SCALES = ("smoke", "demo", "study", "paper")
SOURCES = ("phantom", "echonet", "pediatric", "cardiacnet", "camus", "dicom", "table")
# Every section that dvc.yaml watches (one it did not watch could be changed without effect), and
# `cluster` and `tune`, which change no result.
SECTIONS = (
    "scale",
    "seed",
    "phantoms",
    "datasets",
    "validate_raw",
    "validate_latents",
    "validate_release",
    "generate",
    "animate",
    "train_vae",
    "train_lidm",
    "train_lvdm",
    "distill",
    "train_reid",
    "sample_hearts",
    "sample_videos",
    "anomaly",
    "train_ef",
    "ef_arms",
    "evaluate",
    "canary",
    "classify",
    "release",
    "cluster",
    "tune",
)


def setting(
    default: Any = dataclasses.MISSING,
    *,
    lo: float | None = None,
    hi: float | None = None,
    choices: tuple | None = None,
    help: str = "",
) -> Any:
    """A dataclass field with inclusive limits or a closed list of values."""
    metadata = {"lo": lo, "hi": hi, "choices": choices, "help": help}
    if isinstance(default, list | dict):
        raise TypeError("use a tuple, or None, as the default of a setting")
    return dataclasses.field(default=default, metadata=metadata)


def build(cls: type[T], values: dict[str, Any] | None, where: str) -> T:
    """Make `cls` from a mapping read from `where` (a file and section, for the message).

    Raises EchosynError naming the key, the value and what would be accepted. A dataclass may
    define `check(self) -> str | None`, returning what is wrong across its fields.
    """
    values = values or {}
    if not isinstance(values, dict):
        raise EchosynError(f"{where}: expected settings as 'key: value', found {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else "."
            raise EchosynError(
                f"{where}: unknown setting '{key}'{hint} Known settings: {', '.join(fields)}."
            )
    made: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in values:
            if (
                field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING
            ):
                raise EchosynError(f"{where}: setting '{name}' is missing")
            continue
        made[name] = _coerce(values[name], hints[name], f"{where}: {name}")
        _check_limits(made[name], field.metadata, f"{where}: {name}")
    result = cls(**made)
    check = getattr(result, "check", None)
    problem = check() if check else None
    if problem:
        raise EchosynError(f"{where}: {problem}")
    return result


def _coerce(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        args = typing.get_args(hint)
        if value is None and type(None) in args:
            return None
        hint = next(a for a in args if a is not type(None))
        origin = typing.get_origin(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise EchosynError(f"{where}: expected a list, found {value!r}")
        args = typing.get_args(hint)
        if args[-1] is not Ellipsis and len(args) != len(value):
            raise EchosynError(f"{where}: expected {len(args)} values, found {value!r}")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        return tuple(_coerce(v, k, where) for v, k in zip(value, kinds, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise EchosynError(f"{where}: expected 'key: value' pairs, found {value!r}")
        kind = typing.get_args(hint)[1]
        return {str(k): _coerce(v, kind, f"{where}.{k}") for k, v in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 1e-4 (no dot) as text.
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise EchosynError(f"{where}: expected a finite number, found {value!r}")
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise EchosynError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value


def _check_limits(value: Any, limits: Any, where: str) -> None:
    if value is None:
        return
    if isinstance(value, dict):
        value = tuple(value.values())
    for v in value if isinstance(value, tuple) else (value,):
        if limits.get("choices") and v not in limits["choices"]:
            near = difflib.get_close_matches(str(v), map(str, limits["choices"]), n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            allowed = ", ".join(map(str, limits["choices"]))
            raise EchosynError(f"{where}: {v!r} is not one of {allowed}{hint}")
        if limits.get("lo") is not None and not v >= limits["lo"]:
            raise EchosynError(f"{where}: {v!r} is below the least allowed value {limits['lo']}")
        if limits.get("hi") is not None and not v <= limits["hi"]:
            raise EchosynError(f"{where}: {v!r} is above the greatest allowed value {limits['hi']}")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; an empty file is an empty mapping.

    Raises:
        EchosynError: there is no such file, or it is not UTF-8 text, not YAML or no mapping.
    """
    try:
        value = yaml.safe_load(read_text(path))
    except FileNotFoundError:
        raise EchosynError(f"{path} does not exist") from None
    except yaml.YAMLError as e:
        raise EchosynError(f"{path}: {yaml_problem(e, read_text(path))}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise EchosynError(f"{path}: expected a mapping at the top level, found {value!r}")
    return value


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One entry of `datasets` in params.yaml."""

    role: str = setting(
        choices=("train", "guest"), help="train: models learn from it; guest: only looked at"
    )
    source: str = setting(choices=SOURCES, help="ingest adapter")
    path: str = setting(help="folder that holds the raw dataset, relative to the project")
    label: str = setting("ef", choices=("ef", "class", "none"), help="what FileList.csv labels")
    options: dict[str, Any] | None = setting(None, help="settings of the adapter")
    max_rejects: int = setting(0, lo=0, help="videos that ingest may leave out as unusable")
    splits: dict[str, int] | None = setting(
        None, lo=0, help="videos expected per split; the gate compares, None compares nothing"
    )
    synthetic: dict[str, int] | None = setting(
        None, lo=0, help="videos of its release per split; None: as conf/<scale>/sample_videos.yaml"
    )

    def check(self) -> str | None:
        for name in ("splits", "synthetic"):
            unknown = set(getattr(self, name) or ()) - {"TRAIN", "VAL", "TEST"}
            if unknown:
                return f"{name}: {sorted(unknown)[0]!r} is not one of TRAIN, VAL, TEST"
        return None


class Params:
    """params.yaml and the conf files of its scale, read from a project folder.

    Every top-level section is checked by name against the stages that read it, so that a
    misspelt section cannot be ignored.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.raw = read_yaml(root / "params.yaml")
        for key in self.raw:
            if key not in SECTIONS:
                near = difflib.get_close_matches(str(key), SECTIONS, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else "."
                raise EchosynError(
                    f"params.yaml: unknown section '{key}'{hint} Known: {', '.join(SECTIONS)}; "
                    "other settings of stages are in conf/<scale>/<stage>.yaml"
                )
        self.scale = str(self.raw.get("scale"))
        if self.scale not in SCALES:
            raise EchosynError(
                f"params.yaml: scale: {self.scale!r} is not one of {', '.join(SCALES)}"
            )
        seed = self.raw.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
            raise EchosynError(f"params.yaml: seed: {seed!r} is not an integer in 0 .. 2^31 - 1")
        self.seed = seed

    def dataset(self, name: str) -> Dataset:
        """One entry of `datasets`.

        Raises:
            EchosynError: there is none, naming what asks for it; or a setting is wrong.
        """
        users = self._users(name)
        if users and name not in self._names("datasets"):
            raise EchosynError(
                f"params.yaml: no '{name}' under datasets: put the entry back, or take it out of "
                f"{' and '.join(users)}"
            )
        return build(Dataset, self.entry("datasets", name), f"params.yaml: datasets.{name}")

    def require_train(self, folder: Path) -> None:
        """Check that a folder, such as data/train/<dataset>, is of a dataset with role 'train'.

        Raises:
            EchosynError: it is left over from one that was taken out, or is a guest now.
        """
        name = folder.name
        if name not in self._names("datasets"):
            raise EchosynError(
                f"{folder} belongs to no dataset in params.yaml: remove it, or put the entry back"
            )
        role = self.dataset(name).role
        if role != "train":
            raise EchosynError(
                f"{folder} is left over: datasets.{name} in params.yaml has role '{role}': remove "
                "it, or set role: train"
            )

    def _users(self, name: str) -> list[str]:
        """The entries of other sections that ask for a dataset of that name."""
        found = ["generate"] if name in self._names("generate") else []
        for section in ("animate", "anomaly", "canary", "ef_arms"):
            if name in self._names(section):
                found.append(f"{section}.{name}")
        tasks = self.raw.get("classify")
        for task, entry in tasks.items() if isinstance(tasks, dict) else ():
            if isinstance(entry, dict) and entry.get("dataset") == name:
                found.append(f"classify.{task}")
        return found

    def _names(self, section: str) -> list[str]:
        """The names of a section's entries; none where it is no mapping or list of them."""
        entries = self.raw.get(section)
        return list(entries) if isinstance(entries, dict | list) else []

    def stage(self, stage: str, cls: type[T]) -> T:
        """Settings of a stage: conf/<scale>/<stage>.yaml overlaid with its params section."""
        values, where = self.settings(stage)
        return build(cls, values, where)

    def entry(self, section: str, name: str) -> dict[str, Any]:
        """What params.yaml says of `name` in a section of named entries, which may be nothing.

        Raises:
            EchosynError: no such entry, or one that is no mapping.
        """
        entries = self.raw.get(section) or {}
        where = f"params.yaml: {section}"
        if not isinstance(entries, dict):
            raise EchosynError(f"{where}: expected 'name: settings', found {entries!r}")
        if name not in entries:
            known = ", ".join(map(str, entries)) or "none"
            raise EchosynError(f"params.yaml: no '{name}' under {section}; known: {known}")
        own = entries[name] or {}
        if not isinstance(own, dict):
            raise EchosynError(f"{where}.{name}: expected 'key: value', found {own!r}")
        return own

    def named(self, stage: str, section: str, name: str, cls: type[T]) -> T:
        """Settings of an entry: conf/<scale>/<stage>.yaml, replaced by what the entry says."""
        conf = self.conf(stage)
        where = f"{conf.relative_to(self.root)} and params.yaml: {section}.{name}"
        sizes = read_yaml(conf) if conf.exists() else {}
        return build(cls, {**sizes, **self.entry(section, name)}, where)

    def conf(self, stage: str) -> Path:
        """The file of a stage's sizes; not every stage has one."""
        return self.root / "conf" / self.scale / f"{stage}.yaml"

    def settings(self, stage: str) -> tuple[dict[str, Any], str]:
        """What the files say for a stage, and their names for a message."""
        conf = self.conf(stage)
        sizes = read_yaml(conf) if conf.exists() else {}
        knobs = self.raw.get(stage) or {}
        if not isinstance(knobs, dict):
            raise EchosynError(f"params.yaml: {stage}: expected 'key: value', found {knobs!r}")
        both = sorted(set(sizes) & set(knobs))
        if both:
            raise EchosynError(
                f"'{both[0]}' is set both in {conf.relative_to(self.root)} and in params.yaml "
                f"under {stage}; keep one"
            )
        return {**sizes, **knobs}, f"{conf.relative_to(self.root)} and params.yaml: {stage}"
