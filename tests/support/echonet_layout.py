"""A few small videos in EchoNet layout."""

import numpy as np

from echosyn.data.filelist import COLUMNS
from echosyn.data.video import write_video

SPLITS = ("TRAIN", "TRAIN", "VAL", "TEST")


def clip(seed, frames=4, height=112, width=112):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phase = np.linspace(0, np.pi, frames)[:, None, None]
    speckle = rng.rayleigh(0.5, (frames, height, width))
    return (
        (np.abs(np.sin(x / 9 + y / 13 + phase + seed)) * 90 * speckle).clip(0, 255).astype("uint8")
    )


def make(folder, size=(112, 112), fps=50, columns=()):
    """Write videos v0..v3; `columns` are further (name, values) of FileList.csv."""
    (folder / "Videos").mkdir(parents=True)
    lines = [",".join([*COLUMNS, *(name for name, _ in columns)])]
    for i, split in enumerate(SPLITS):
        write_video(folder / "Videos" / f"v{i}.avi", clip(i, 4 + i, *size), fps)
        more = "".join(f",{values[i]}" for _, values in columns)
        lines.append(f"v{i},60.0,40.0,100.0,{size[0]},{size[1]},{fps},{4 + i},{split}{more}")
    (folder / "FileList.csv").write_text("\n".join(lines) + "\n")
    return folder


def edit(folder, line, old, new):
    """Change a cell of FileList.csv; `line` counts from 1, the header."""
    path = folder / "FileList.csv"
    lines = path.read_text().splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_text("\n".join(lines) + "\n")
