"""Published versions, as DVC's model registry (GTO) writes them: git tags.

`phantom@v0.1.0` is version 0.1.0 of the release of `phantom`; `phantom#approved#2` gives the
version at its commit a stage, `phantom#approved!#3` takes it back. Every tag is annotated: by whom
and when is git's own record.
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from echosyn.runtime.errors import EchosynError

if TYPE_CHECKING:
    from scmrepo.git import Git

# https://semver.org, the suggested regular expression with its build part left out.
VERSION = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
)
# A dataset's name in params.yaml, as far as GTO takes it.
ARTIFACT = re.compile(r"[a-z0-9](?:[a-z0-9_]*[a-z0-9])?")
SPEC = re.compile(rf"(?P<name>{ARTIFACT.pattern})@v?(?P<version>{VERSION.pattern})", re.ASCII)
CANDIDATE, APPROVED, WITHDRAWN = "candidate", "approved", "withdrawn"


@dataclass(frozen=True)
class Tagged:
    """A git tag: its name, who made it, when, and what was said."""

    tag: str
    who: str
    when: datetime
    said: str


@dataclass(frozen=True)
class Version:
    """A published version. stage: the last that it was given, empty where that was taken back."""

    name: str
    version: str
    published: Tagged
    stage: str = ""
    staged: Tagged | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def tag(self) -> str:
        return self.published.tag

    @property
    def standing(self) -> str:
        """The stage, what was said, and who tagged it when; '-' without a stage."""
        if self.staged is None:
            return "-"
        said = self.staged.said
        words = said if said.startswith(self.stage) else f"{self.stage}: {said}"
        return f"{words} (tagged by {self.staged.who}, {self.staged.when:%Y-%m-%d %H:%M})"


def parse_spec(spec: str) -> tuple[str, str]:
    """Name and version of NAME@VERSION, such as phantom@0.1.0 or its tag, phantom@v0.1.0.

    Raises:
        EchosynError: it is written otherwise.
    """
    if found := SPEC.fullmatch(spec):
        return found["name"], found["version"]
    raise EchosynError(f"{spec!r} is not NAME@VERSION, such as phantom@0.1.0")


def semantic(version: str) -> Any:
    """What versions are ordered by: https://semver.org, 11."""
    from semver import Version as Semantic

    return Semantic.parse(version)


def read_versions(scm: "Git") -> list[Version]:
    """Every published version of every release in a git repository, newest first.

    Tags of another form, and those that are not annotated, are none of ours.
    """
    from gto.constants import Action
    from gto.tag import find, parse_name

    acts = []
    for tag in find(scm=scm):
        parsed = parse_name(tag.name)
        act, who = parsed.get("action"), f"{tag.tagger_name} <{tag.tagger_email}>"
        made = Tagged(tag.name, who, tag.tag_datetime, tag.message.strip())
        # GTO counts the tags of a name: within a second nothing else tells their order.
        order = (parsed.get("counter", 0), made.when, act is not Action.REGISTER)
        acts.append((order, act, (parsed["name"], tag.target), parsed.get("stage"), made))
    versions: dict[tuple[str, str], Version] = {}
    for _, act, at, stage, made in sorted(acts, key=lambda a: a[0]):
        if act is Action.REGISTER and SPEC.fullmatch(made.tag):
            versions[at] = Version(*parse_spec(made.tag), made)
        elif act is Action.DEREGISTER:
            versions.pop(at, None)
        elif at in versions and act is Action.ASSIGN:
            versions[at] = replace(versions[at], stage=stage, staged=made)
        elif at in versions and act is Action.UNASSIGN and versions[at].stage == stage:
            versions[at] = replace(versions[at], stage="", staged=None)
    newest = sorted(versions.values(), key=lambda v: semantic(v.version), reverse=True)
    return sorted(newest, key=lambda v: v.published.when, reverse=True)


def register(scm: "Git", name: str, version: str, said: str) -> list[str]:
    """Make the commit that is checked out a version, and a candidate; the names of the tags."""
    from gto.registry import GitRegistry

    with GitRegistry.from_url(scm) as registry:
        made = registry.register(name, "HEAD", f"v{version}", message=said, simple=True)
    (found,) = (v for v in read_versions(scm) if v.tag == made.tag)
    return [made.tag, *give_stage(scm, found, CANDIDATE, "candidate, as published")]


def give_stage(scm: "Git", version: Version, stage: str, said: str) -> list[str]:
    """Take a version's stage back and give it another; the names of the tags."""
    from gto.registry import GitRegistry

    name, at = version.name, f"v{version.version}"
    # force: GTO's own check goes by seconds.
    with GitRegistry.from_url(scm) as registry:
        back = [
            registry.unassign(name, version.stage, version=at, message=said, force=True).tag
        ] if version.stage else []  # fmt: skip
        return [*back, registry.assign(name, stage, at, message=said, force=True).tag]
