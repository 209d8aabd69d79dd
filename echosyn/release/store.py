"""Versions of a release in a project's git and DVC: found, read and fetched.

    folder = resolve("phantom@0.1.0", Path("phantom-0.1.0"), "https://example.org/clinic.git")

gives a folder whose every byte was compared with its manifest and with what git recorded.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echosyn.release.manifest import MANIFEST, parse_manifest, read_manifest, verify
from echosyn.release.sign import public_key, signature_problems
from echosyn.release.versions import (
    ARTIFACT,
    WITHDRAWN,
    Version,
    parse_spec,
    read_versions,
    semantic,
)
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import atomic_dir, digest
from echosyn.runtime.lineage import dvc_md5
from echosyn.runtime.process import cache_root

if TYPE_CHECKING:
    from dvc.repo import Repo
    from scmrepo.git import Git

RELEASES = "releases"


@contextmanager
def open_store(where: str | None = None) -> Iterator["Store"]:
    """The project at `where`: a folder or an address that git clones (default: this folder).

    Raises:
        EchosynError: there is no such project, or git, DVC or GTO refuse, with what they said.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.open_repo import clean_repos
    from gto.exceptions import GTOException
    from scmrepo.exceptions import SCMError

    try:
        # `open` makes up a remote where there is none: the project's own cache.
        with Repo.open(where) if where else Repo() as repo:
            yield Store(repo, where or ".")
    except (DvcException, GTOException, SCMError, ImportError) as e:  # such as: requires 'dvc-s3'
        raise EchosynError(f"{where or Path.cwd()}: {' '.join(str(e).split())}") from e
    finally:
        clean_repos()  # removes the clone of an address


class Store:
    """An open project. Methods raise EchosynError for what does not exist or is out of reach."""

    def __init__(self, repo: "Repo", where: str) -> None:
        self.repo, self.where = repo, where

    @property
    def scm(self) -> "Git":
        """The git repository, whose tags the versions are."""
        from scmrepo.git import Git

        if not isinstance(self.repo.scm, Git):
            raise EchosynError(f"{self.where}: no git keeps this folder, so it has no versions")
        return self.repo.scm

    def versions(self, name: str | None = None) -> list[Version]:
        """Those of one release, or of all, newest first."""
        return [v for v in read_versions(self.scm) if name in (None, v.name)]

    def find(self, spec: str) -> Version:
        """The version that NAME@VERSION names; for NAME the highest that was not withdrawn."""
        known = self.versions()
        name, version = (spec, None) if "@" not in spec else parse_spec(spec)
        if version is None:
            fine = [v for v in known if v.name == name and v.stage != WITHDRAWN]
            found = max(fine, key=lambda v: semantic(v.version), default=None)
        else:
            found = next((v for v in known if (v.name, v.version) == (name, version)), None)
        if found:
            return found
        listed = ", ".join(map(str, known)) or "none; `echosyn releases publish` makes one"
        raise EchosynError(f"{self.where}: no version {spec}; published: {listed}")

    def md5(self, name: str, rev: str) -> str | None:
        """What dvc.lock has for a release at a revision, or in the `workspace`; None where it has
        no such output."""
        from dvc.exceptions import OutputNotFoundError

        with self.repo.switch(rev):
            path = self.repo.fs.join(self.repo.root_dir, RELEASES, name)
            try:
                (out,) = self.repo.find_outs_by_path(path)
            except OutputNotFoundError:
                return None
            return out.hash_info.value

    def manifest(self, version: Version) -> dict[str, Any]:
        """Read from DVC's cache or remote; no video is fetched."""
        path = f"{RELEASES}/{version.name}/{MANIFEST}"
        with (
            self.repo.switch(version.tag),
            _reached(version),
            self.repo.dvcfs.open(path, mode="rb") as file,
        ):
            text = file.read()
        return parse_manifest(text, f"{version}: {MANIFEST}")

    def copy(self, version: Version, path: str, project: Path) -> None:
        """Another output of DVC at that version, such as models/vae, to the same place in a folder
        `project`."""
        from dvc.fs import download

        (project / path).parent.mkdir(parents=True, exist_ok=True)
        with self.repo.switch(version.tag), _reached(version):
            download(self.repo.dvcfs, path, str(project / path))

    def fetch(
        self, version: Version, out: Path, withdrawn: bool = False, key: Path | None = None
    ) -> Path:
        """The release at that version, in the new folder `out`, whole or not at all.

        Args:
            withdrawn: take it though it was withdrawn.
            key: file of the public key that its manifest must be signed with.
        """
        from dvc.fs import download

        if key is not None:
            public_key(key)  # before anything is fetched
        if version.stage == WITHDRAWN and not withdrawn:
            raise EchosynError(
                f"{version} is {version.standing}; --withdrawn fetches it all the same"
            )
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise EchosynError(f"{out} is there and not empty: choose another folder")
        md5, path = self.md5(version.name, version.tag), f"{RELEASES}/{version.name}"
        if md5 is None:
            raise EchosynError(f"{version}: dvc.lock has no {path} at that version")
        with atomic_dir(out) as tmp:
            tmp.rmdir()  # DVC downloads into a folder that is there, and as one that is not
            with self.repo.switch(version.tag), _reached(version):
                files = self.repo.index.data["repo"].iteritems((RELEASES, version.name))
                if bad := ["/".join(p[2:]) for p, _ in files if {"", ".", ".."} & set(p)]:
                    raise EchosynError(f"{version}: {bad[-1]} lies outside the release")
                download(self.repo.dvcfs, path, str(tmp))
            if problems := verify(tmp):
                raise EchosynError(f"{version} is not as published: {'; '.join(problems[:5])}")
            if key is not None and (problems := signature_problems(tmp, key)):
                raise EchosynError(f"{version} is refused: {problems[0]}")
            if dvc_md5(tmp) != md5:
                raise EchosynError(f"{version}: not the bytes that dvc.lock has at {version.tag}")
            if (own := read_manifest(tmp)["version"]) != version.version:
                raise EchosynError(f"{version}: its manifest says version {own}")
        return out


@contextmanager
def _reached(version: Version) -> Iterator[None]:
    from dvc_data.index import DataIndexDirError

    try:
        yield
    except (OSError, DataIndexDirError) as e:
        raise EchosynError(
            f"{version}: not all of it is in DVC's cache or on its remote ({e}); whoever published "
            "it runs `dvc push`"
        ) from e


def resolve(spec: str, out: Path, where: str | None = None) -> Path:
    """The folder of a release: `spec` itself where it is a folder, which is not verified; else the
    version NAME@VERSION, fetched to the new folder `out` and verified.

    Args:
        where: the project that published it: a folder or an address that git clones (default: this
            folder).

    Raises:
        EchosynError: no such version, listing those that exist; one that was withdrawn; `out` is in
            use; or the bytes are out of reach or not as published.
    """
    if Path(spec).is_dir():
        return Path(spec)
    parse_spec(spec)
    with open_store(where) as store:
        return store.fetch(store.find(spec), out)


def locate(release: Path | str, where: str | None = None) -> Path:
    """Where a release lies: the one place that knows how it may be named.

    Args:
        release: its folder; NAME, for releases/NAME of the project here; or NAME@VERSION, which is
            fetched and verified once and kept in the user's cache. Warns of one that lies there and
            was withdrawn since, or that nobody can be asked about.
        where: the project that published the version, as for `resolve`.

    Raises:
        EchosynError: there is no such folder, or as `resolve`.
    """
    folder, spec = Path(release), str(release)
    if folder.is_dir():
        return folder
    if ARTIFACT.fullmatch(spec) and (own := Path(RELEASES, spec)).is_dir():
        return own
    if "@" not in folder.name:
        raise EchosynError(
            f"{folder} is not there, or no folder: give the folder of a release, or NAME@VERSION"
        )
    parse_spec(spec)  # nothing else becomes a path of the cache
    project = Path(where or ".")
    source = digest(str(project.resolve()) if project.is_dir() else where)
    kept = cache_root() / "releases" / source[:12] / spec
    if not kept.is_dir():
        return resolve(spec, kept, where)
    try:
        with open_store(where) as store:
            if (version := store.find(spec)).stage == WITHDRAWN:
                warnings.warn(f"{version} is {version.standing}", stacklevel=3)
    except EchosynError as e:
        warnings.warn(f"{spec} is in {kept}; whether it was withdrawn since: {e}", stacklevel=3)
    return kept
