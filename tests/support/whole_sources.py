"""Each kind of source as it lies on disk, with patients enough for the whole graph: 4 of TRAIN, 4
of VAL, 2 of TEST. Hearts are the phantom's where the layout takes any picture.
"""

from hashlib import sha256

import pandas as pd
from dicom_files import tissue, write_dicom
from source_layouts import camus, cardiacnet, pediatric

from echosyn.data.filelist import PATIENT
from echosyn.data.ingest.pseudonym import make_key
from echosyn.data.phantom import PhantomConfig, render_patient, write_dataset
from echosyn.data.video import write_video

FRAMES, SEED = 24, 7
SPLITS = ["TRAIN"] * 4 + ["VAL"] * 4 + ["TEST"] * 2
FOLDS = [0, 1, 5, 7, 8, 8, 8, 8, 9, 9]
SHARES = {"train": 0.4, "val": 0.4, "test": 0.2}
PEOPLE = 24  # of the DICOM folder, dealt by their pseudonyms


def heart(i, **settings):
    cfg = PhantomConfig(train=1, val=1, test=1, frames=FRAMES, **settings)
    return render_patient(i, cfg, SEED).frames


def dynamic(folder):
    cfg = PhantomConfig(train=4, val=4, test=2, frames=FRAMES)
    write_dataset(folder, cfg, SEED, workers=1)
    table = pd.read_csv(folder / "FileList.csv").drop(columns=PATIENT)  # which it does not have
    table.to_csv(folder / "FileList.csv", index=False)
    return {"source": "echonet", "label": "ef"}


def ped_a4c(folder):
    pediatric(folder, FOLDS, "A4C", draw=heart)
    return {"source": "pediatric", "label": "ef", "options": {"view": "A4C"}}


def ped_psax(folder):
    pediatric(folder, FOLDS, "PSAX", draw=lambda i: heart(i, view="psax"))
    return {"source": "pediatric", "label": "ef", "options": {"view": "PSAX"}}


def cardiacnet_pah(folder):
    cardiacnet(folder, 4, 4, draw=lambda i, _: heart(i))
    return {"source": "cardiacnet", "label": "class", "options": {"split": SHARES}}


def camus_4ch(folder):
    camus(folder, len(SPLITS), splits=False, views=("4CH",), frames=FRAMES)
    return {"source": "camus", "label": "ef", "options": {"views": ["4CH"], "split": SHARES}}


def dicom(folder):
    folder.mkdir()
    for i in range(PEOPLE):
        uid = f"1.2.3.{i}"
        write_dicom(folder / f"IM_{i:04d}", tissue(i, FRAMES), PatientID=f"MRN-{i}",
                    SOPInstanceUID=uid)  # fmt: skip
    key = folder.parent / "key"
    make_key(key)
    key.write_text(sha256(b"key").hexdigest())  # the same people in the same splits every time
    return {"source": "dicom", "label": "none", "options": {"key": str(key), **SHARES}}


def table(folder):
    folder.mkdir()
    lines = ["Path;LVEF;MRN;Set"]
    for i, split in enumerate(SPLITS):
        write_video(folder / f"echo {i}.avi", heart(i), 32)
        lines.append(f"echo {i}.avi;0,{41 + 3 * i};{1000 + i};{split.lower()}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    key = folder.parent / "key of the table"
    make_key(key)
    options = {
        "csv": "labels.csv", "separator": ";", "decimal": ",", "units": {"ef": "fraction"},
        "columns": {"file": "Path", "ef": "LVEF", "patient": "MRN", "split": "Set"},
        "split_names": {split.lower(): split for split in SPLITS}, "key": str(key),
    }  # fmt: skip
    return {"source": "table", "label": "ef", "options": options}


SOURCES = {
    f.__name__: f for f in (dynamic, ped_a4c, ped_psax, cardiacnet_pah, camus_4ch, dicom, table)
}
