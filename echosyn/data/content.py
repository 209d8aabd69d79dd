"""What a dataset folder holds, in one small file that stands for it among a stage's dependencies.

DVC looks at every file of a folder again for each stage that depends on it. With 10,000 videos and
forty such stages that is nearly all of what `dvc status` takes.
"""

from pathlib import Path

from echosyn.data.video import map_videos
from echosyn.runtime.files import sha256_file, write_text

CONTENT = "content.sha256"


def write_content(folder: Path) -> None:
    """Write the SHA-256 of all that a folder holds to its CONTENT, as `sha256sum -c` reads it."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    sums = map_videos(lambda name: sha256_file(folder / name), names, "hash", "files")
    lines = [f"{sha256}  {name}\n" for sha256, name in zip(sums, names, strict=True)]
    write_text(folder / CONTENT, "".join(lines))
