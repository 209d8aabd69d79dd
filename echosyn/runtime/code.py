"""The code that decides what a stage writes: the closure of its imports.

dvc.yaml lists it among the dependencies of the stage; its digest names what a stage can resume
from, and is a tag of the run. After a change of imports:

    python -m echosyn.runtime.code
"""

import ast
import re
import textwrap
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TypeGuard

from echosyn.runtime.files import digest, write_text

ROOT = Path(__file__).parents[2]
PACKAGES = ("echosyn", "pipelines")
# They run, record and draw: no number and no video depends on them. Nor on the version.
ASIDE = (
    "echosyn/__init__.py",
    *(f"echosyn/{p}/" for p in ("cluster", "project", "report", "runtime", "tracking")),
)
DRAWN = ("privacy_page", "release", "report")  # stages whose output is drawn
DEPS = re.compile(r"^( *)deps: \[([^\]]*)\]", re.MULTILINE)
MODULE = re.compile(r"(?:echosyn|pipelines)(?:\.\w+)+")
PIPELINE = re.compile(r"python -m pipelines\.(\w+)")  # in the command of a stage
WIDTH = 100


def modules(stage: str, root: Path = ROOT) -> tuple[str, ...]:
    """Files of code, relative to `root`, that an output of pipelines/<stage>.py depends on.

    Imports count wherever they stand, inside functions too, and modules that a string names, as
    for another process; imports for type checkers alone do not. Files that are no code count with
    the module beside them that names them or their folder.
    Packages of `ASIDE` are left out, with what only they import; drawn stages keep `report`.
    """
    aside = tuple(p for p in ASIDE if not (stage in DRAWN and p == "echosyn/report/"))
    found: set[str] = set()
    left = [f"pipelines/{stage}.py"]
    while left:
        file = left.pop()
        if file not in found and not file.startswith(aside):
            found.add(file)
            left += imports(root, file)
    return tuple(sorted(found.union(*(_read_by(root, f) for f in found))))


def code_digest(stage: str, root: Path = ROOT) -> str:
    """16 hex digits that change with any of a stage's `modules`; of a stage without a file in
    pipelines/, as in a test, what no code gives."""
    known = (root / "pipelines" / f"{stage}.py").is_file()
    files = modules(stage, root) if known else ()
    return digest(files, [root / f for f in files])


@cache
def imports(root: Path, file: str) -> frozenset[str]:
    """Files under `root` that a file of ours imports, the packages around them included."""
    tree = ast.parse((root / file).read_text(encoding="utf-8"))
    unseen = {n for node in ast.walk(tree) if _for_types(node) for part in node.body
              for n in ast.walk(part)}  # fmt: skip
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.Constant) and MODULE.fullmatch(text := str(node.value)):
            names.add(text)
    ours = (n.split(".") for n in names if n.split(".")[0] in PACKAGES)
    parts = {".".join(n[: i + 1]) for n in ours for i in range(len(n))}
    return frozenset(f for name in parts if (f := _file(root, name)) and not _bare(root, f))


@cache
def _bare(root: Path, file: str) -> bool:
    """An __init__.py that says what its package is and does nothing."""
    if not file.endswith("/__init__.py"):
        return False
    tree = ast.parse((root / file).read_text(encoding="utf-8"))
    return all(isinstance(n, ast.Expr) for n in tree.body)


@cache
def _read_by(root: Path, file: str) -> frozenset[str]:
    """Files in the folder of a module, or below, that are no code and that it names."""
    here, text = (root / file).parent, (root / file).read_text(encoding="utf-8")
    beside = (p for p in here.rglob("*.*") if p.is_file() and p.suffix not in (".py", ".pyc"))
    return frozenset(
        p.relative_to(root).as_posix()
        for p in beside
        if p.relative_to(here).parts[0].split(".")[0] in text
    )


def _for_types(node: ast.AST) -> TypeGuard[ast.If]:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def _file(root: Path, module: str) -> str | None:
    path = root / module.replace(".", "/")
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((p.relative_to(root).as_posix() for p in candidates if p.is_file()), None)


def with_code(graph: str, root: Path = ROOT) -> str:
    """The text of a dvc.yaml with every stage's `deps` holding its data, then its `modules`."""
    commands = [(m.start(), m[1]) for m in PIPELINE.finditer(graph)]

    def filled(match: re.Match) -> str:
        stage = [name for start, name in commands if start < match.start()][-1]
        given = (d.strip() for d in match[2].replace("\n", " ").split(","))
        data = [d for d in given if d and not d.strip('"').startswith(("echosyn/", "pipelines/"))]
        head = f"{match[1]}deps: ["
        return head + _wrapped([*data, *_packed(modules(stage, root), root)], len(head)) + "]"

    return DEPS.sub(filled, graph)


def _packed(files: Iterable[str], root: Path) -> list[str]:
    """`files`, a folder instead of all that it holds."""
    packed, left = [], set(files)
    folders = {p for f in left for p in Path(f).parents if len(p.parts) > 1}
    for folder in sorted(folders, key=lambda p: len(p.parts)):
        inside = [p for p in (root / folder).rglob("*.*") if p.suffix != ".pyc" and p.is_file()]
        held = {p.relative_to(root).as_posix() for p in inside}
        held = {f for f in held if not _bare(root, f)}
        if len(held) > 1 and held <= left:
            packed.append(folder.as_posix())
            left -= held
    return sorted([*packed, *left])


def _wrapped(items: Iterable[str], indent: int) -> str:
    lines = textwrap.wrap(
        ", ".join(items), WIDTH - indent - 1, break_long_words=False, break_on_hyphens=False
    )
    return ("\n" + " " * indent).join(lines)


def main() -> None:
    path = ROOT / "dvc.yaml"
    old = path.read_text(encoding="utf-8")
    new = with_code(old)
    write_text(path, new)
    print(f"{path}: {'as it was' if new == old else 'dependencies on code written'}")


if __name__ == "__main__":
    main()
