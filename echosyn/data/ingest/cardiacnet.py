"""CardiacNet: apical four-chamber cines in a folder per class, as NIfTI or as videos.

    CardiacNet-PAH/PAH/001_image.nii.gz        001_label.nii.gz (a few frames' masks, not used)
    CardiacNet-PAH/Non-PAH/...
    CardiacNet-ASD/ASD/...  CardiacNet-ASD/Non-ASD/...

What is directly in a class folder is a patient: a file, or a folder of the patient's clips (the
download unpacks some files to folders such as 111_image.nii/PHI01.nii). There is no split in the
release: patients of each class are dealt out, seeded.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from echosyn.data.filelist import CLASS, PATIENT
from echosyn.data.ingest.canonical import SKIPPED, TURNED, UNEVEN, Clip, Item, Note, Plan, Reject
from echosyn.data.ingest.fit import fit_video
from echosyn.data.ingest.found import ARCHIVES, holds
from echosyn.data.ingest.names import file_names
from echosyn.data.ingest.nifti import SUFFIXES as NIFTI
from echosyn.data.ingest.nifti import grey_frames, read_nifti
from echosyn.data.ingest.splits import Shares, split_patients
from echosyn.data.video import resample_indices
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

TASKS = {"PAH": ("PAH", "non-PAH"), "ASD": ("ASD", "non-ASD")}
VIDEO = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg")
MASKS = re.compile(r"_(label|mask|gt)\.nii(\.gz)?$", re.IGNORECASE)
SUFFIX = re.compile(r"(_image)?(\.nii\.gz|\.[A-Za-z0-9]{1,4})$", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """Settings of a CardiacNet dataset."""

    task: str = setting("PAH", choices=tuple(TASKS), help="which of the two pairs of classes")
    fps: float | None = setting(
        32.0, lo=1, hi=500, help="frame rate to resample to; null keeps each recording's own"
    )
    nifti_fps: float = setting(
        32.0, lo=1, hi=500, help="frame rate of NIfTI files, which state none; 32: frames are kept"
    )
    split: Shares = setting(Shares(), help="of the patients of each class")


def plan(raw: Path, label: str, options: Options) -> Plan:
    """The recordings of two classes; see `echosyn.data.ingest.ingest`.

    Raises:
        EchosynError: a class folder is missing, or EF is asked for.
    """
    if label == "ef":
        raise EchosynError(f"{raw}: CardiacNet has classes and no EF; set 'label: class'")
    found: list[tuple[Path, Path, str]] = []  # file, its class folder, class
    skipped: list[Reject] = []
    masks = 0
    for name in TASKS[options.task]:
        folder = _class_folder(raw, name, options.task)
        for file in _files(folder):
            if MASKS.search(file.name):
                masks += 1
            elif file.name.lower().endswith((*NIFTI, *VIDEO)):
                found.append((file, folder, name))
            else:
                packed = file.name.lower().endswith(ARCHIVES)
                reason = "an archive: unpack it" if packed else "neither NIfTI nor a video"
                skipped.append(Reject(str(file.relative_to(raw)), reason, SKIPPED))
    patients = {_patient(file, folder, name): name for file, folder, name in found}
    splits = split_patients(patients, options.split)
    names = file_names(
        [str(file.relative_to(raw)) for file, _, _ in found],
        ["_".join([name, *_parts(file, folder)]) for file, folder, name in found],
    )
    items = [
        _item(raw, *entry, file_name, splits, options)
        for entry, file_name in zip(found, names, strict=True)
    ]
    notes = [f"{masks} files of masks are not used"] if masks else []
    return Plan(items, skipped, notes)


def _class_folder(raw: Path, name: str, task: str) -> Path:
    """The folder of a class: the raw one's child, or in a folder such as CardiacNet-PAH."""
    folders = [f for f in (*sorted(raw.glob("*")), *sorted(raw.glob("*/*"))) if f.is_dir()]
    matching = [f for f in folders if _is_class(f, name)]
    if not matching:
        missing = f"{raw}: no folder {name!r} in it or one level below"
        raise EchosynError(f"{missing}{_instead(raw, name, task, folders)}")
    if len(matching) > 1:
        listed = ", ".join(str(f) for f in matching[:3])
        raise EchosynError(f"{raw}: several folders are named {name!r}: {listed}; keep one")
    return matching[0]


def _is_class(folder: Path, name: str) -> bool:
    wanted = {name.lower(), name.lower().replace("non-", "none-")}
    return folder.name.lower().replace("_", "-") in wanted


def _instead(raw: Path, name: str, task: str, folders: list[Path]) -> str:
    """What is there in place of the folder of a class, and what to do."""
    if _is_class(raw, name):
        return f": it is that folder itself: set `path` of the dataset to {raw.parent}"
    other = next(t for t in TASKS if t != task)
    if any(_is_class(f, other) for f in folders):
        return (
            f", but one of {other!r}: set the option task: {other}, or `path` to where {name!r} is"
        )
    deeper = next((f for f in sorted(raw.glob("*/*/*")) if f.is_dir() and _is_class(f, name)), None)
    if deeper is not None:
        return f", but {deeper} is there: set `path` of the dataset to {deeper.parent}"
    return f"; {holds(raw)}; CardiacNet has a folder per class"


def _files(folder: Path) -> list[Path]:
    """Files below a folder, sorted; links to folders are not followed, so that none is a loop."""
    files = [Path(at) / name for at, _, names in os.walk(folder) for name in names]
    return sorted(f for f in files if not f.name.startswith("."))


def _patient(file: Path, folder: Path, name: str) -> str:
    return f"{name}-{_parts(file, folder)[0]}"


def _parts(file: Path, folder: Path) -> list[str]:
    """Names of a file's folders below that of the class, and its own, without suffixes."""
    return [SUFFIX.sub("", part) for part in file.relative_to(folder).parts]


def _item(
    raw: Path, file: Path, folder: Path, name: str, file_name: str, splits: dict[str, str],
    options: Options,
) -> Item:  # fmt: skip
    patient = _patient(file, folder, name)
    row = {CLASS: name, PATIENT: patient, "Split": splits[patient]}
    return Item(str(file.relative_to(raw)), file_name, row, lambda: _read(file, options))


def _read(file: Path, options: Options) -> Clip:
    if file.name.lower().endswith(NIFTI):
        volume = read_nifti(file)
        frames, fps = grey_frames(volume, file), volume.fps or options.nifti_fps
        notes = (TURNED,) if volume.turned else ()
    else:
        video = fit_video(file, keep=True)
        assert video.frames is not None  # they are kept
        frames, fps = video.frames, video.fps
        notes = (Note(UNEVEN, video.note),) if video.note else ()
    if options.fps is None or options.fps == fps:
        return Clip(frames, fps, notes=notes)
    resampled = frames[resample_indices(len(frames), fps, options.fps)]
    return Clip(resampled, options.fps, notes=notes)
