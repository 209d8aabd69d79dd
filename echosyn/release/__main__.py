"""Check a release, or compare two.

python -m echosyn.release verify releases/phantom --key publisher.pub
python -m echosyn.release diff releases/phantom ../older/phantom
"""

import argparse
import sys
from pathlib import Path

from echosyn.release.diff import diff
from echosyn.release.manifest import MANIFEST, read_manifest, verify
from echosyn.release.sign import signature_problems
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import sha256_file


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 in order (or no difference), 1 otherwise, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="python -m echosyn.release", description=__doc__.split("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("verify", help="compare every file of a release with its manifest")
    one.add_argument("folder", type=Path)
    one.add_argument("--key", type=Path, help="public key of who must have signed the manifest")
    two = commands.add_parser("diff", help="what changed between two releases")
    two.add_argument("old", type=Path)
    two.add_argument("new", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.command == "diff":
            lines = diff(read_manifest(options.old), read_manifest(options.new))
            print("\n".join(lines) or "no difference")
            return 1 if lines else 0
        problems = verify(options.folder)
        if options.key:
            problems += signature_problems(options.folder, options.key)
        if problems:
            print("\n".join(problems), file=sys.stderr)
            print(f"{options.folder}: {len(problems)} problem(s)", file=sys.stderr)
            return 1
        manifest = read_manifest(options.folder)
    except EchosynError as e:
        print(f"echosyn: {e}", file=sys.stderr)
        return 1
    count = len(manifest["files"])
    print(f"{manifest['name']} {manifest['version']}: all {count} files are as published")
    if options.key:
        print(f"{MANIFEST} is signed with the key in {options.key}")
    print(f"{MANIFEST} sha256 {sha256_file(options.folder / MANIFEST)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
