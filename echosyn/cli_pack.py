"""`echosyn releases pack` and `unpack`."""

import argparse
from pathlib import Path

MB = 10**6


def add_pack(commands: argparse._SubParsersAction) -> None:
    """Add both commands; each sets `run`, which gives the exit status."""
    pack = commands.add_parser(
        "pack",
        help="a release as WebDataset shards and Parquet tables, or as DICOM files",
        description="Write a release in another form (docs/loading.md): as a few large archives "
        "and Parquet tables, or as a DICOM file a video. Every byte is compared with the manifest. "
        "The same release gives the same bytes, and `unpack` makes it again.",
    )
    pack.add_argument(
        "release", metavar="NAME|DIR", help="releases/NAME, NAME@VERSION, or a release's folder"
    )
    pack.add_argument("out", type=Path, metavar="OUT", help="a folder that is not there yet")
    pack.add_argument("--format", choices=("webdataset", "dicom"), default="webdataset")
    pack.add_argument(
        "--shard-mb", type=_size, default=256, metavar="MB", help="largest shard (default: 256)"
    )
    pack.set_defaults(run=_pack)
    unpack = commands.add_parser(
        "unpack",
        help="the release that was packed, byte for byte",
        description="Make a release of its pack again. What is damaged, unknown to the manifest, a "
        "link or a name that leads elsewhere is refused, and nothing is left.",
    )
    unpack.add_argument("packed", type=Path, metavar="DIR", help="what `pack` has written")
    unpack.add_argument("folder", type=Path, metavar="OUT", help="a folder that is not there yet")
    unpack.set_defaults(run=_unpack)


def _size(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of megabytes, 1 or more")
    return int(text)


def _pack(args: argparse.Namespace) -> int:
    from echosyn.release.pack import SUMS, pack
    from echosyn.release.store import locate
    from echosyn.runtime.files import sha256_file

    folder = locate(args.release)
    if args.format == "dicom":
        from echosyn.release.dicom import pack_dicom

        count, what = pack_dicom(folder, args.out), "DICOM file"
    else:
        count, what = len(pack(folder, args.out, args.shard_mb * MB)), "shard"
    print(f"{args.out}: {count} {what}{'s' * (count != 1)}")
    print(f"{SUMS} sha256 {sha256_file(args.out / SUMS)}")
    return 0


def _unpack(args: argparse.Namespace) -> int:
    from echosyn.release.manifest import MANIFEST, read_manifest
    from echosyn.release.unpack import unpack
    from echosyn.runtime.files import sha256_file

    unpack(args.packed, args.folder)
    count = len(read_manifest(args.folder)["files"])
    print(f"{args.folder}: all {count} files are as published")
    print(f"{MANIFEST} sha256 {sha256_file(args.folder / MANIFEST)}")
    return 0
