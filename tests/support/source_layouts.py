"""The datasets of the field as they are on disk, with a few small videos each."""

import cv2
import nibabel
import numpy as np
from echonet_layout import clip

from echosyn.data.video import write_video


def nifti(path, values, spacing=(0.3, 0.3), units=10):
    """Write values (T, H, W) with axes (x, y, time), as ITK does; `units` 10 is mm and s."""
    image = nibabel.Nifti1Image(values.T, np.diag([*spacing[::-1], 1.0, 1.0]))
    image.header["xyzt_units"] = units
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def pediatric(folder, folds, view="A4C", rows=None, draw=lambda i: clip(i, 3 + i % 3)):
    """EchoNet-Pediatric's folder of a view: a video per fold, names with .avi, 40 fps."""
    root = folder / "pediatric_echo_avi" / "pediatric_echo_avi" / view
    (root / "Videos").mkdir(parents=True)
    lines = ["FileName,EF,Sex,Age,Weight,Height,Split"]
    for i, fold in enumerate(folds):
        write_video(root / "Videos" / f"CR{i}-{i}.avi", draw(i), 40)
        lines.append(f"CR{i}-{i}.avi,6{i % 10}.5,{'MF'[i % 2]},{i},{10 + i}.5,{80 + i},{fold}")
    (root / "FileList.csv").write_text("\n".join(rows or lines) + "\n")
    (root / "VolumeTracings.csv").write_text(
        "FileName,X,Y,Frame\nCR0-0.avi,10.5,20.25,1\nCR0-0.avi,11,21,No Systolic\n"
    )
    return folder


def cardiacnet(folder, pah=6, normal=5, draw=lambda i, frames: clip(i, frames, 60, 80)):
    """CardiacNet-PAH: NIfTI per patient and class, some with masks; one patient in a folder."""
    for name, count in (("PAH", pah), ("Non-PAH", normal)):
        root = folder / "CardiacNet-PAH" / name
        for i in range(1, count + 1):
            frames = draw(i + 100 * len(name), 5)
            nifti(root / f"{i:03d}_image.nii.gz", frames)
            if i < 3:
                nifti(root / f"{i:03d}_label.nii.gz", np.zeros_like(frames))
        nifti(root / "111_image.nii" / "PHI01.nii", draw(7 + len(name), 4))
    return folder


def half_beat(frames=6, size=(120, 160), systole=0.5):
    """Frames and masks (T, H, W) of a ventricle that shrinks to `systole` of its width."""
    images, masks = [], []
    for t in range(frames):
        half = 20 * (1 - (1 - systole) * t / (frames - 1))
        mask = np.zeros(size, np.uint8)
        cv2.ellipse(mask, (70, 90), (18, 14), 0, 0, 360, 3, -1)  # left atrium
        cv2.ellipse(mask, (70, 50), (int(half) + 5, 42), 0, 0, 360, 2, -1)  # myocardium
        cv2.ellipse(mask, (70, 50), (int(half), 36), 0, 0, 360, 1, -1)  # left ventricle
        mask[0:8] = 0
        noise = np.random.default_rng(t).integers(0, 40, size)
        images.append((noise + 60 * (mask == 2) + 20 * (mask == 3)).astype(np.uint8))
        masks.append(mask)
    return np.stack(images), np.stack(masks)


def camus(folder, patients=4, splits=True, views=("2CH", "4CH"), spacing=(0.3, 0.3), frames=6):
    """CAMUS_public as NIfTI."""
    names = [f"patient{i:04d}" for i in range(1, patients + 1)]
    images, masks = half_beat(frames)
    for i, name in enumerate(names):
        root = folder / "database_nifti" / name
        for view in views:
            nifti(root / f"{name}_{view}_half_sequence.nii.gz", images + i, spacing)
            nifti(root / f"{name}_{view}_half_sequence_gt.nii.gz", masks, spacing)
            (root / f"Info_{view}.cfg").write_text(
                f"ED: 1\nES: {len(images)}\nNbFrame: {len(images)}\nSex: F\nAge: {50 + i}\n"
                f"ImageQuality: Good\nEF: {40 + i}\nFrameRate: 45.5\n"
            )
    if splits:
        (folder / "database_split").mkdir()
        groups = {"training": names[:-2], "validation": names[-2:-1], "testing": names[-1:]}
        for group, members in groups.items():
            (folder / "database_split" / f"subgroup_{group}.txt").write_text("\n".join(members))
    return folder
