"""CAMUS as NIfTI: half a heartbeat of each patient in two apical views, with masks.

    database_nifti/patient0001/patient0001_4CH_half_sequence.nii.gz      frames
    database_nifti/patient0001/patient0001_4CH_half_sequence_gt.nii.gz   1 LV, 2 myocardium, 3 LA
    database_nifti/patient0001/Info_4CH.cfg                              EF, FrameRate, ED, ES, ...
    database_split/subgroup_{training,validation,testing}.txt            a patient per line

A view becomes a video, `patient0001_4CH`. The masks of its first and last phase (ED and ES) become
VolumeTracings.csv as EchoNet's: the long axis, then twenty chords.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from echosyn.data.filelist import PATIENT, SPLITS, TRACINGS
from echosyn.data.ingest.canonical import TURNED, Clip, Item, Plan, Reject
from echosyn.data.ingest.fit import SquareFit, square_pixels
from echosyn.data.ingest.found import holds, nearby
from echosyn.data.ingest.nifti import Volume, grey_frames, read_nifti
from echosyn.data.ingest.splits import Shares, split_patients
from echosyn.data.ingest.tracing import trace
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text
from echosyn.runtime.text import read_text

VIEWS = ("2CH", "4CH")
SUBGROUPS = dict(zip(SPLITS, ("training", "validation", "testing"), strict=True))
VENTRICLE, ATRIUM = 1, 3
LINES = ["FileName", "X1", "Y1", "X2", "Y2", "Frame"]
NIFTI_FILE = "database_nifti/patient0001/patient0001_2CH_half_sequence.nii.gz"
OLDER = (
    "this is CAMUS's older release, as MetaImage (.mhd and .raw), which is not read: download the "
    f"later one, as NIfTI ({NIFTI_FILE})"
)


@dataclass(frozen=True)
class Options:
    """Settings of a CAMUS dataset."""

    views: tuple[str, ...] = setting(VIEWS, choices=VIEWS, help="apical views to take")
    fps: float | None = setting(
        None, lo=1, help="frame rate where the Info file states none; without it those are rejected"
    )
    split: Shares = setting(Shares(), help="of patients, when the folder has no database_split")


def plan(raw: Path, label: str, options: Options) -> Plan:
    """Two views of every patient; see `echosyn.data.ingest.ingest`.

    Raises:
        EchosynError: no patient folder is found, a list of a subgroup names a patient twice, or
            classes are asked for.
    """
    if label == "class":
        raise EchosynError(f"{raw}: CAMUS has an EF and no class; set the dataset's 'label: ef'")
    root = raw / "database_nifti" if (raw / "database_nifti").is_dir() else raw
    folders = sorted(f for f in root.glob("patient*") if f.is_dir())
    if not folders:
        raise EchosynError(_no_patients(raw, root))
    if not any(any(f.glob("*.nii*")) for f in folders):
        old = next((file for f in folders for file in sorted(f.glob("*.mhd"))), None)
        if old is not None:
            raise EchosynError(f"{old}: {OLDER}")
    splits, rejects = _splits(raw, [f.name for f in folders], options)
    items = [
        _item(folder, view, splits[folder.name], options)
        for folder in folders
        if folder.name in splits
        for view in options.views
    ]
    return Plan(items, rejects, finish=_write_tracings)


def _no_patients(raw: Path, root: Path) -> str:
    """What is in a folder that has no patients where they are looked for."""
    missing = f"{raw}: no folder 'patient*' in it or in its database_nifti"
    old = sorted(f for part in ("training", "testing") for f in (raw / part).glob("*/*.mhd"))
    if old:
        return f"{missing}; {old[0]}: {OLDER}"
    there = nearby(raw, "database_nifti")
    if there is not None:
        return f"{missing}, but {there} is there: set `path` of the dataset to {there.parent}"
    return f"{missing}; {holds(root)}; CAMUS is read as NIfTI, in {NIFTI_FILE}"


def _splits(raw: Path, patients: list[str], options: Options) -> tuple[dict[str, str], list]:
    """The published split of every patient, else one of ours; and patients without one."""
    lists = {s: raw / "database_split" / f"subgroup_{name}.txt" for s, name in SUBGROUPS.items()}
    if not any(file.is_file() for file in lists.values()):
        return split_patients(dict.fromkeys(patients, ""), options.split), []
    splits: dict[str, str] = {}
    for split, file in lists.items():
        if not file.is_file():
            raise EchosynError(f"{file} is missing beside the other subgroups; download it again")
        for number, line in enumerate(read_text(file).splitlines(), 1):
            for patient in line.split():
                if patient in splits:
                    raise EchosynError(
                        f"{file}: line {number}: {patient} is listed in {splits[patient]} already: "
                        "remove it from one of the lists"
                    )
                splits[patient] = split
    known = set(patients)
    rejects = [
        Reject(p, f"{lists[splits[p]].name} lists it, but it has no folder")
        for p in splits
        if p not in known
    ]
    rejects += [Reject(p, "in no list of database_split") for p in patients if p not in splits]
    return splits, rejects


def _item(folder: Path, view: str, split: str, options: Options) -> Item:
    name = f"{folder.name}_{view}"
    row = {"Split": split, PATIENT: folder.name}
    return Item(f"{folder.name} {view}", name, row, lambda: _read(folder, view, options))


def _read(folder: Path, view: str, options: Options) -> Clip:
    info_file = folder / f"Info_{view}.cfg"
    info = read_info(info_file)
    cine = _find(folder, f"{folder.name}_{view}_half_sequence")
    if not cine.is_file():
        raise EchosynError(f"{cine}: the file does not exist{_instead(folder, view)}")
    volume = read_nifti(cine)
    frames = grey_frames(volume, cine)
    if "NbFrame" in info and _number(info, "NbFrame", info_file) != len(frames):
        raise EchosynError(f"{cine}: {len(frames)} frames, {info_file.name} says {info['NbFrame']}")
    fps = _number(info, "FrameRate", info_file) if "FrameRate" in info else options.fps
    if fps is None:
        raise EchosynError(f"{info_file}: no FrameRate; set the option 'fps'")
    facts = {
        "EF": info.get("EF", info.get("LVef", "")),
        "ESV": info.get("LVesv", ""),
        "EDV": info.get("LVedv", ""),
        "Sex": info.get("Sex", ""),
        "Age": info.get("Age", ""),
        "tracings": _tracings(folder, view, info, info_file, volume),
    }
    return Clip(frames, fps, facts, (TURNED,) if volume.turned else ())


def _instead(folder: Path, view: str) -> str:
    """What a patient's folder holds of a view in place of its cine."""
    old = sorted(folder.glob(f"*_{view}_*.mhd"))
    if old:
        return f", but {old[0].name} does: {OLDER}"
    others = ", ".join(sorted(f.name for f in folder.glob(f"*_{view}_*")))
    return f"; of {view} there is {others or 'nothing'}: download the patient again"


def read_info(path: Path) -> dict[str, str]:
    """The `Key: value` lines of an Info file.

    Raises:
        EchosynError: the file is missing or not text, or a line is not of that form.
    """
    try:
        lines = read_text(path).splitlines()
    except FileNotFoundError:
        raise EchosynError(f"{path}: the file does not exist: download the patient again") from None
    info = {}
    for number, line in enumerate(lines, 1):
        key, colon, value = line.partition(":")
        if not line.strip():
            continue
        if not colon:
            raise EchosynError(f"{path}: line {number}: {line!r} is not of the form 'key: value'")
        info[key.strip()] = value.strip()
    return info


def _number(info: Mapping[str, str], key: str, where: Path) -> float:
    try:
        return float(info[key])
    except KeyError:
        raise EchosynError(f"{where}: no {key}") from None
    except ValueError:
        raise EchosynError(f"{where}: {key} {info[key]!r} is not a number") from None


def _find(folder: Path, stem: str) -> Path:
    names = [folder / f"{stem}.nii.gz", folder / f"{stem}.nii"]
    return next((f for f in names if f.is_file()), names[0])


def _tracings(
    folder: Path, view: str, info: Mapping[str, str], info_file: Path, volume: Volume
) -> list[tuple[Any, ...]]:
    """Rows X1, Y1, X2, Y2, Frame of ED and ES, in the fitted frame; none without masks."""
    file = _find(folder, f"{folder.name}_{view}_half_sequence_gt")
    if not file.is_file():
        return []
    masks = read_nifti(file).values
    if masks.shape != volume.values.shape:
        raise EchosynError(f"{file}: masks of {masks.shape}, frames of {volume.values.shape}")
    masks = np.stack(
        [square_pixels(m, volume.aspect, cv2.INTER_NEAREST) for m in masks.astype("uint8")]
    )
    square = SquareFit.of(masks)
    rows = []
    for phase in ("ED", "ES"):
        number = int(_number(info, phase, info_file))
        if not 1 <= number <= len(masks):
            raise EchosynError(f"{info_file}: {phase} {number} is not among {len(masks)} frames")
        mask = masks[number - 1]
        lines = trace(mask == VENTRICLE, mask == ATRIUM)
        if lines is None:
            raise EchosynError(f"{file}: no left ventricle in frame {number} ({phase})")
        rows += [(*square.point(*a[:2]), *square.point(*a[2:]), number - 1) for a in lines]
    return rows


def _write_tracings(out: Path, table: pd.DataFrame) -> None:
    rows = [
        (f"{name}.avi", *(f"{v:.4f}" for v in line[:4]), line[4])
        for name, lines in zip(table["FileName"], table["tracings"], strict=True)
        for line in lines
    ]
    if rows:
        lines = pd.DataFrame(rows, columns=LINES)
        write_text(out / TRACINGS, lines.to_csv(index=False, lineterminator="\n"))
