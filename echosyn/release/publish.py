"""What must hold before a release becomes a version that others fetch; then its tag.

Also the two steps after it: approved by a person, or withdrawn.
"""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from echosyn.privacy.gate.requirements import Thresholds
from echosyn.release.build import ReleaseConfig, require_audit, require_gate
from echosyn.release.manifest import MANIFEST, read_manifest, verify
from echosyn.release.store import RELEASES, Store
from echosyn.release.versions import (
    APPROVED,
    ARTIFACT,
    WITHDRAWN,
    Version,
    give_stage,
    register,
    semantic,
)
from echosyn.runtime.config import Params, build
from echosyn.runtime.errors import EchosynError

SHOWN = 5  # names in a message


def publish(store: Store, root: Path, name: str, version: str | None = None) -> list[str]:
    """Make releases/<name>, as committed and pushed, a version; the names of its new tags, none
    where the very bytes are published as that version.

    Args:
        root: the project, whose git repository `store` is. version: the one expected.

    Raises:
        EchosynError: a rule that is not kept, with what to do.
    """
    if not ARTIFACT.fullmatch(name):
        raise EchosynError(f"{name!r}: a release's name is a-z, 0-9 and '_', which may not end it")
    if Path(store.scm.root_dir).resolve() != root.resolve():
        raise EchosynError(
            f"{root}: not the root of its git repository, {store.scm.root_dir}: `echosyn init` "
            "makes a project that is"
        )
    folder = root / RELEASES / name
    _refuse_changes(store)
    manifest = read_manifest(folder)
    _require_artifact(store, name)
    _require_version(manifest, Params(root), version)
    if problems := verify(folder):
        raise EchosynError(f"{folder} is not whole: {_some(problems)}: dvc checkout {folder}")
    _require_checks(root, name)
    _require_bytes(store, folder)
    known = store.versions(name)
    own = manifest["version"]
    if same := next((v for v in known if v.version == own), None):
        if store.md5(name, same.tag) == store.md5(name, "workspace"):
            return []
        raise EchosynError(
            f"{same} is published with other bytes: raise `version` under `release` in params.yaml"
            ", run dvc repro, commit and dvc push"
        )
    last = max(known, key=lambda v: semantic(v.version), default=None)
    if last and semantic(own) < semantic(last.version):
        raise EchosynError(
            f"{name}: version {own} is lower than {last.version}, the last published"
        )
    return register(store.scm, name, own, f"Publish {manifest['name']} {own}")


def approve(store: Store, version: Version, by: str, note: str | None = None) -> list[str]:
    """Say that a person approved a version; the names of the tags.

    Raises:
        EchosynError: it is approved already, or withdrawn.
    """
    if version.stage in (APPROVED, WITHDRAWN):
        raise EchosynError(f"{version} is {version.standing}")
    said = f"approved by {_line('--by', by)}" + (f": {_line('--note', note)}" if note else "")
    return give_stage(store.scm, version, APPROVED, said)


def withdraw(store: Store, version: Version, because: str) -> list[str]:
    """Say that nobody should use a version any more, and why; the names of the tags.

    Raises:
        EchosynError: it is withdrawn already.
    """
    if version.stage == WITHDRAWN:
        raise EchosynError(f"{version} is {version.standing}")
    return give_stage(store.scm, version, WITHDRAWN, f"withdrawn: {_line('--because', because)}")


def _line(option: str, text: str) -> str:
    if not text.strip() or len(text.splitlines()) > 1:
        raise EchosynError(f"{option}: expected words, on one line")
    return text.strip()


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _refuse_changes(store: Store) -> None:
    staged, unstaged, untracked = store.scm.status()
    changed = sorted({*chain(*staged.values()), *unstaged, *untracked})
    if changed:
        raise EchosynError(
            f"changes that are not committed: {_some(changed)}: a version is a commit: commit them,"
            " or put them aside (git stash -u)"
        )


def _require_artifact(store: Store, name: str) -> None:
    found = store.repo.artifacts.read().get("dvc.yaml", {}).get(name)
    if found is None or found.path != f"{RELEASES}/{name}":
        raise EchosynError(
            f"dvc.yaml: `artifacts` does not have {name}, which `dvc artifacts get` looks for: add "
            f"and commit\n\n  {name}:\n    path: {RELEASES}/{name}\n    type: dataset\n"
        )


def _require_version(manifest: dict[str, Any], params: Params, expected: str | None) -> None:
    own, asked = manifest["version"], params.stage("release", ReleaseConfig).version
    if own != asked:
        raise EchosynError(
            f"{MANIFEST} says version {own}, params.yaml: release: version says {asked}: dvc repro"
        )
    if expected not in (None, own):
        raise EchosynError(f"--version {expected}: the release that lies here is {own}")


def _require_checks(root: Path, name: str) -> None:
    """As the stage `release` asks, of the samples that lie here."""
    samples = root / "samples" / name
    settings, where = Params(root).settings("privacy_audit")
    require_gate(root / "gates/release" / f"{name}.json", samples)
    require_audit(
        root / "audit" / name,
        samples,
        build(Thresholds, settings.get("thresholds"), f"{where}: thresholds"),
    )


def _require_bytes(store: Store, folder: Path) -> None:
    path = f"{RELEASES}/{folder.name}"
    if changed := store.repo.status([str(folder)]):
        (facts,) = changed.values()
        if "not in cache" in str(facts):
            raise EchosynError(f"{path} is not in DVC's cache: dvc commit, then dvc push {path}")
        raise EchosynError(
            f"{path} is not what dvc.lock recorded, or what it was made from has changed "
            f"({facts}): run dvc repro, then commit"
        )
    if not store.repo.config["core"].get("remote"):
        raise EchosynError(
            "DVC has no default remote to fetch from: dvc remote add --default NAME WHERE"
        )
    lacking = store.repo.status([str(folder)], cloud=True)
    for state, said in {
        "missing": "neither in DVC's cache nor on its default remote: dvc commit, then dvc push",
        "new": "not on DVC's default remote: dvc push",
        "deleted": "on DVC's default remote, but not in the cache: dvc fetch",
    }.items():
        if names := sorted(n for n, found in lacking.items() if found == state):
            raise EchosynError(f"{_some(names)}: {said} {path}")
