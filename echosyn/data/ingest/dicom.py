"""A folder of ultrasound DICOM cines: the sector alone leaves, as grey 112x112 videos.

Everything outside the ultrasound sector is blackened, and so is what is burned into it. No tag is
kept but the frame rate. A video is named by a hash of its pixel data, which tells two cines apart
and finds a cine again in the folder it came from; pixel data cannot be guessed, so the hash hides
it even without a key. A patient's number can be guessed: it becomes a pseudonym only under a key
that the user holds. Then videos carry a Patient and the patients are split. Without a key there is
no Patient, and all videos are TEST.

Files are named by their number, in the order of their paths, never by their path: a path may hold
a name, and what is said here ends up in tables. "file 7" is what this prints in the raw folder:
find . ! -type d | LC_ALL=C sort | sed -n 7p
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from echosyn.data.filelist import PATIENT
from echosyn.data.ingest import exported
from echosyn.data.ingest.canonical import UNEVEN, Clip, Item, Note, Plan
from echosyn.data.ingest.cine import Cine, open_cine
from echosyn.data.ingest.fit import FRAME_SIZE
from echosyn.data.ingest.names import bare_number
from echosyn.data.ingest.pseudonym import Pseudonymiser, read_key, split_of
from echosyn.data.ingest.sector import Crop, Motion
from echosyn.data.ingest.splits import Shares
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

KEPT_BYTES = 64 * 2**20  # of decoded frames per thread; larger cines are decoded a second time


@dataclass(frozen=True)
class Options(Shares):
    """What a user decides about a folder of DICOM files; shares and seed count with a key."""

    key: str = setting(
        "", help="file of the pseudonym key, outside the project; none: no Patient, all in TEST"
    )
    max_frames: int = setting(20_000, lo=2, help="a file that declares more is rejected")
    fps: float | None = setting(
        None, lo=1, hi=500, help="frame rate of files that state none; without it they are rejected"
    )


def plan(raw: Path, label: str, options: Options) -> Plan:
    """Every file below `raw` as a video to make; see `echosyn.data.ingest.canonical`. A release
    that was packed as DICOM is read back as it was.

    Single images, other modalities and files that are not DICOM are skipped.

    Raises:
        EchosynError: the label is not "none", the folder is empty, or the key is not good.
    """
    if exported.is_exported(raw):
        return exported.plan(raw, label)
    if label != "none":
        raise EchosynError(f"{raw}: a DICOM cine carries no EF; set the dataset's 'label: none'")
    files = [f for f in raw.rglob("*") if f.is_symlink() or not f.is_dir()]
    if not files:
        raise EchosynError(f"{raw}: no DICOM files: the folder is empty")
    files.sort(key=lambda f: os.fsencode(f.relative_to(raw)))
    key = read_key(options.key, raw) if options.key else None
    people = People()
    items = [
        Item(
            source=f"file {number} of {len(files)} by path",
            name="",
            row={},
            read=partial(read_clip, file, options, key, people, number),
        )
        for number, file in enumerate(files, 1)
    ]
    return Plan(items, by_name=True)


class People:
    """Patients met so far, by bare number: who writes one person's number two ways hears of it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._met: dict[str, tuple[str, int]] = {}  # bare number -> pseudonym, number of the file

    def note(self, patient: str, pseudonym: str, number: int) -> Note | None:
        """What to say of a patient, whose number no message shows, of the file `number`."""
        with self._lock:
            known, first = self._met.setdefault(bare_number(patient), (pseudonym, number))
        if known == pseudonym:
            return None
        how = f"that of file {first} but for leading zeros or '.0'; taken as two people"
        return Note("of a PatientID nearly that of another file", how)


def read_clip(
    path: Path, options: Options, key: Pseudonymiser | None, people: People, number: int
) -> Clip:
    """Decode a file: its sector in uint8 (T, 112, 112), all else black.

    Raises:
        SkipError, EchosynError: see `open_cine` and `cut_sector`; with a key, also no PatientID.
    """
    try:
        cine = open_cine(path, options.max_frames, options.fps)
        digest = cine.digest()
        notes = list(_notes(cine))
    except OSError as e:  # whose text names the file
        raise EchosynError(f"the file cannot be opened: {e.strerror}") from None
    if key is None:
        facts = {"FileName": f"0X{digest.hex()[:16].upper()}", "Split": "TEST"}
    else:
        patient = _patient(cine, key)
        notes += [note] if (note := people.note(cine.patient, patient, number)) else []
        shares = (options.train, options.val, options.test)
        facts = {
            # With the patient: the same pixels under two numbers are for the gate to see.
            "FileName": "0X" + key.digits("video", patient.encode() + digest),
            "Split": split_of(patient, shares, options.seed),
            PATIENT: patient,
        }
    return Clip(cut_sector(cine), cine.pace.fps, facts, notes=notes)


def _notes(cine: Cine) -> Iterator[Note]:
    if cine.pace.note:
        yield Note(UNEVEN, cine.pace.note)
    if cine.aspect is None:
        yield Note("without a tag that states the aspect of pixels: taken as square")
    elif cine.doubt:
        yield Note("of pixels whose aspect is stated twice", cine.doubt)


def _patient(cine: Cine, key: Pseudonymiser) -> str:
    try:
        return key.patient(cine.patient)
    except EchosynError:
        raise EchosynError(
            "no PatientID, so its patient may be in two splits: give it one, or leave the key out"
        ) from None


def cut_sector(cine: Cine) -> np.ndarray:
    """The sector of a cine in its smallest square, evenly paced, uint8 (T, 112, 112).

    Raises:
        EchosynError: a frame cannot be decoded, or no sector is found, so that nothing may leave.
    """
    motion = Motion()
    kept: list[np.ndarray] | None = []
    if cine.count * cine.rows * cine.columns > KEPT_BYTES:
        kept = None
    for frame in cine.frames():
        motion.add(frame)
        if kept is not None:
            kept.append(frame)
    crop, wanted = Crop(motion.sector(cine.box)), cine.pace.frames
    out = np.empty((len(wanted), FRAME_SIZE, FRAME_SIZE), np.uint8)
    for t, frame in enumerate(cine.frames() if kept is None else kept):
        if t in wanted:
            out[wanted == t] = crop.apply(frame)
    return out
