"""Settings changed in the text of YAML files, comments and layout kept, and as a patch of them."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from echosyn.runtime.config import read_yaml
from echosyn.runtime.text import read_text

NULL = "tag:yaml.org,2002:null"


def patch(root: Path, conf: Path, stage: str, changes: Mapping[str, Any]) -> str:
    """A unified diff, for `git apply`, that sets `changes` where each setting lives now.

    Args:
        conf: file of the stage's sizes; a key that is in neither file is added there, one whose
            first part is in the stage's section of params.yaml is changed there.
        changes: dotted key: value. Comments and layout of the files stay as they are.
    """
    params = root / "params.yaml"
    section = read_yaml(params).get(stage) or {}
    edits: dict[Path, dict[str, Any]] = {}
    for key, value in changes.items():
        inside = key.split(".")[0] in section
        path, full = (params, f"{stage}.{key}") if inside else (conf, key)
        edits.setdefault(path, {})[full] = value
    parts = []
    for path, values in edits.items():
        before = read_text(path) if path.exists() else ""
        after = before
        for key, value in values.items():
            after = set_value(after, key.split("."), value)
        parts.append(unified_diff(before, after, path.relative_to(root).as_posix()))
    return "".join(parts)


def set_value(text: str, keys: list[str], value: Any) -> str:
    """YAML text with the value at nested `keys` replaced in place, or added to its mapping."""
    node = yaml.compose(text)
    # As an entry of a list in brackets: quoted so that it may stand anywhere.
    written = yaml.safe_dump([value], default_flow_style=True, width=10**6).strip()[1:-1]
    for depth, key in enumerate(keys):
        if node is None or not isinstance(node, yaml.MappingNode):
            break
        child = next((v for k, v in node.value if k.value == key), None)
        if child is None:
            return _insert(text, node, keys[depth:], written)
        if depth == len(keys) - 1:
            start, end = child.start_mark.index, child.end_mark.index
            return text[:start] + written + text[start + len(text[start:end].rstrip()) :]
        if child.tag == NULL and child.start_mark.index == child.end_mark.index:  # `key:`, no more
            start = child.start_mark.index
            return text[:start] + f" {{{_nested(keys[depth + 1 :], written)}}}" + text[start:]
        node = child
    return text + ("" if not text or text.endswith("\n") else "\n") + _nested(keys, written) + "\n"


def _nested(keys: list[str], written: str) -> str:
    """`a: {b: value}`."""
    head, *rest = keys
    return f"{head}: {{{_nested(rest, written)}}}" if rest else f"{head}: {written}"


def _insert(text: str, node: yaml.MappingNode, keys: list[str], written: str) -> str:
    entry = _nested(keys, written)
    if node.flow_style:
        close = node.end_mark.index - 1
        comma = ", " if node.value else ""
        return text[:close].rstrip() + comma + entry + text[close:]
    last = node.value[-1][1]
    line_end = text.find("\n", max(last.end_mark.index - 1, 0))
    at = len(text) if line_end < 0 else line_end
    indent = " " * node.start_mark.column
    return text[:at] + f"\n{indent}{entry}" + text[at:]


def unified_diff(before: str, after: str, name: str) -> str:
    """What `git apply` needs to make `before` into `after`; empty when they are the same.

    Args:
        name: the file's, relative to the project.
    """
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        f"a/{name}" if before else "/dev/null",
        f"b/{name}",
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )
