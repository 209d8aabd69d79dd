"""The command `echosyn releases`: versions of a release, published, approved, fetched, compared."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echosyn.cli_pack import add_pack
from echosyn.runtime.errors import EchosynError

if TYPE_CHECKING:
    from echosyn.release.store import Store
    from echosyn.release.versions import Version

NONE_YET = """no version is published in {where}. To publish releases/NAME as it lies there:

dvc push && git push
echosyn releases publish NAME"""


def add_releases(commands: argparse._SubParsersAction) -> None:
    """Add `releases` and what it can do to the command line."""
    releases = commands.add_parser(
        "releases",
        help="versions of a release: list, publish, approve, fetch, verify, compare",
        description="Versions of a release are git tags as DVC's model registry writes them "
        "(phantom@v0.1.0, phantom#approved#2), so that `dvc get`, `dvc artifacts get`, `dvc "
        "import` and `gto show` know them too (docs/releases.md).",
    )
    actions = releases.add_subparsers(dest="action", required=True, metavar="ACTION")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument(
        "--from",
        "--remote",
        dest="where",
        metavar="WHERE",
        help="the project that publishes: a folder, or an address that git clones (default: here)",
    )
    _add_looking(actions, place)
    _add_making(actions)
    _add_bytes(actions, place)
    add_pack(actions)


def _add_looking(actions: argparse._SubParsersAction, place: argparse.ArgumentParser) -> None:
    listed = actions.add_parser("list", parents=[place], help="every version, newest first")
    listed.set_defaults(run=_list)
    show = actions.add_parser(
        "show", parents=[place], help="one version: its manifest, its numbers, who approved it"
    )
    show.add_argument("spec", metavar="NAME[@VERSION]", help="default: the highest not withdrawn")
    show.set_defaults(run=_show)


def _add_making(actions: argparse._SubParsersAction) -> None:
    publish = actions.add_parser(
        "publish",
        help="make releases/NAME a version",
        description="Tag this commit as a version of releases/NAME, and as a candidate, if all is "
        "committed and pushed to DVC's default remote, the gate and the audit passed, and the "
        "version is new and higher than the last.",
    )
    publish.add_argument("name", metavar="NAME", help="under `generate` in params.yaml")
    publish.add_argument("--version", help="the version you expect; another one is refused")
    publish.set_defaults(run=_publish)
    approve = actions.add_parser("approve", help="say that a person approved a version")
    approve.add_argument("spec", metavar="NAME@VERSION")
    approve.add_argument("--by", required=True, metavar="WHO", help="who approved it")
    approve.add_argument("--note", metavar="WORDS", help="on what ground")
    approve.set_defaults(run=_approve)
    withdraw = actions.add_parser("withdraw", help="say that nobody should use a version any more")
    withdraw.add_argument("spec", metavar="NAME@VERSION")
    withdraw.add_argument("--because", required=True, metavar="WHY")
    withdraw.set_defaults(run=_withdraw)


def _add_bytes(actions: argparse._SubParsersAction, place: argparse.ArgumentParser) -> None:
    fetch = actions.add_parser(
        "fetch", parents=[place], help="get a version and verify it, whole or not at all"
    )
    fetch.add_argument("spec", metavar="NAME@VERSION")
    fetch.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    fetch.add_argument("--key", type=Path, help="public key that its manifest must be signed with")
    fetch.add_argument("--withdrawn", action="store_true", help="though the version was withdrawn")
    fetch.set_defaults(run=_fetch)
    verify = actions.add_parser("verify", help="compare every file of a release with its manifest")
    verify.add_argument("folder", type=Path, metavar="DIR")
    verify.add_argument("--key", type=Path, help="public key of who must have signed the manifest")
    verify.set_defaults(run=_verify)
    again = actions.add_parser(
        "reproduce",
        parents=[place],
        help="sample some videos again from their seeds, and compare",
        description="Sample some videos of a release again, from their seeds and with the models "
        "and hearts it was made with, and compare them with those released: byte-identical, or how "
        "far off. For NAME@VERSION the models come from DVC at that version; for a folder they are "
        "those of the project here. The exit status is 1 if one is too far off.",
    )
    again.add_argument("spec", metavar="NAME@VERSION|DIR")
    again.add_argument("--videos", type=int, default=3, metavar="N", help="how many (default: 3)")
    again.set_defaults(run=_reproduce)
    diff = actions.add_parser(
        "diff",
        parents=[place],
        help="what changed between two releases",
        description="What changed in data, models, code and settings, and each number with its "
        "95%% intervals: 'a change' where they do not overlap. The exit status is 1 if anything "
        "differs.",
    )
    diff.add_argument("old", metavar="A", help="a folder, or NAME@VERSION")
    diff.add_argument("new", metavar="B", help="the same")
    diff.set_defaults(run=_diff)


def _list(args: argparse.Namespace) -> int:
    from echosyn.release.describe import listing
    from echosyn.release.store import open_store
    from echosyn.runtime.progress import bar

    with open_store(args.where) as store:
        versions = store.versions()
        rows: list[tuple[Version, Mapping[str, Any] | None]] = []
        with bar(len(versions), "manifests", "version", show=len(versions) > 5) as progress:
            for version in versions:
                try:
                    rows.append((version, store.manifest(version)))
                except EchosynError as e:
                    print(f"echosyn: {e}", file=sys.stderr)
                    rows.append((version, None))
                progress.update()
    print(listing(rows) if rows else NONE_YET.format(where=args.where or "this project"))
    return 0


def _show(args: argparse.Namespace) -> int:
    from echosyn.release.describe import described
    from echosyn.release.store import open_store

    with open_store(args.where) as store:
        version = store.find(args.spec)
        print(described(version, store.manifest(version)))
    return 0


def _publish(args: argparse.Namespace) -> int:
    from echosyn.release.publish import publish
    from echosyn.release.store import open_store
    from echosyn.runtime.process import project_root

    root = project_root().resolve()
    with open_store() as store:
        tags = publish(store, root, args.name, args.version)
    if tags:
        return _tagged(tags, "git push origin HEAD")
    print("published already, the same bytes")
    return 0


def _approve(args: argparse.Namespace) -> int:
    from echosyn.release.publish import approve
    from echosyn.release.store import open_store

    with open_store() as store:
        return _tagged(approve(store, _named(store, args.spec), args.by, args.note))


def _withdraw(args: argparse.Namespace) -> int:
    from echosyn.release.publish import withdraw
    from echosyn.release.store import open_store

    with open_store() as store:
        return _tagged(withdraw(store, _named(store, args.spec), args.because))


def _named(store: "Store", spec: str) -> Any:
    from echosyn.release.versions import parse_spec

    parse_spec(spec)
    return store.find(spec)


def _tagged(tags: list[str], push: str = "git push origin") -> int:
    import shlex

    print(f"tagged {', '.join(tags)}; for others to see it:\n{push} {shlex.join(tags)}")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from echosyn.release.store import open_store

    with open_store(args.where) as store:
        version = _named(store, args.spec)
        out = store.fetch(version, args.out, args.withdrawn, args.key)
    signed = f", signed with the key in {args.key}" if args.key else ""
    print(
        f"{version} is in {out}, {version.stage or 'of no stage'}; every byte as published{signed}"
    )
    return 0


def _verify(args: argparse.Namespace) -> int:
    from echosyn.release.manifest import MANIFEST, read_manifest, verify
    from echosyn.release.sign import signature_problems
    from echosyn.runtime.files import sha256_file

    problems = verify(args.folder)
    if args.key:
        problems += signature_problems(args.folder, args.key)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        raise EchosynError(f"{args.folder}: {len(problems)} problem(s)")
    manifest = read_manifest(args.folder)
    count = len(manifest["files"])
    print(f"{manifest['name']} {manifest['version']}: all {count} files are as published")
    if args.key:
        print(f"{MANIFEST} is signed with the key in {args.key}")
    print(f"{MANIFEST} sha256 {sha256_file(args.folder / MANIFEST)}")
    return 0


def _reproduce(args: argparse.Namespace) -> int:
    import tempfile

    from echosyn.runtime.process import prepare, threads

    prepare()
    from echosyn.release.manifest import read_manifest
    from echosyn.release.reproduce import changed_code, fetch_models, reproduce
    from echosyn.release.store import open_store
    from echosyn.runtime.device import set_threads

    set_threads(threads())
    release, project = Path(args.spec), Path()
    with tempfile.TemporaryDirectory() as folder:
        if not release.is_dir():
            release, project = Path(folder, "release"), Path(folder, "project")
            with open_store(args.where) as store:
                version = _named(store, args.spec)
                store.fetch(version, release, withdrawn=True)
                fetch_models(store, version, read_manifest(release), project)
        if changed := changed_code(read_manifest(release)):
            print(f"note: code has changed since: {', '.join(changed)}", file=sys.stderr)
        work = Path(folder, "work")
        work.mkdir()
        found = reproduce(release, project, args.videos, work)
    print("\n".join(map(str, found)))
    passed = sum(one.passes for one in found)
    print(f"{sum(one.identical for one in found)} of {len(found)} byte-identical, {passed} pass")
    return int(passed < len(found))


def _diff(args: argparse.Namespace) -> int:
    from echosyn.release.diff import diff

    lines = diff(_manifest(args.old, args.where), _manifest(args.new, args.where))
    print("\n".join(lines) or "no difference")
    return 1 if lines else 0


def _manifest(spec: str, where: str | None) -> dict[str, Any]:
    from echosyn.release.manifest import read_manifest
    from echosyn.release.store import open_store

    if "@" not in spec or Path(spec).is_dir():
        return read_manifest(Path(spec))
    with open_store(where) as store:
        return store.manifest(_named(store, spec))
