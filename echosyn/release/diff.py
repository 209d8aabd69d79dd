"""What changed between two releases, by their manifests."""

from collections.abc import Mapping
from typing import Any

from echosyn.report.numbers import Number, collect
from echosyn.runtime.lineage import flatten

SECTIONS = {  # title: where in the manifest
    "release": ("name", "version", "license", "generator"),
    "data": ("lineage", "data"),
    "models": ("lineage", "models"),
    "code": ("lineage", "code"),
    "settings": ("params",),
}


def diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines by section: what the release is, data, models and code by md5, settings, numbers with
    whether their intervals overlap, and files by count. Sections without a difference are left out.
    """
    lines: list[str] = []
    for title, path in SECTIONS.items():
        lines += _section(title, _changes(_part(old, title, path), _part(new, title, path)))
    lines += _section("numbers", _numbers(old.get("metrics", {}), new.get("metrics", {})))
    return lines + _section("files", _files(old["files"], new["files"]))


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _part(manifest: Mapping[str, Any], title: str, path: tuple[str, ...]) -> dict[str, Any]:
    if title == "release":
        return {key: manifest.get(key) for key in path}
    part: Any = manifest
    for key in path:
        part = part.get(key, {})
    return flatten(part)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}: {before.get(key, '-')} -> {after.get(key, '-')}"
        for key in sorted(set(before) | set(after))
        if before.get(key) != after.get(key)
    ]


def _numbers(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """Each number that differs, with its intervals, and whether that is more than chance."""
    was, now = collect(before), collect(after)
    lines = []
    for key in dict.fromkeys([*was, *now]):
        a, b = was.get(key), now.get(key)
        if a is None or b is None:
            lines.append(f"{key}: {a or '-'} -> {b or '-'}")
        elif (a.value, a.lo, a.hi) != (b.value, b.lo, b.hi):
            lines.append(f"{key}: {a} -> {b}, {_weight(a, b)}")
    return lines


def _weight(was: Number, now: Number) -> str:
    """Two 95% intervals apart are a change; that they overlap does not show that there is none."""
    if was.lo is None or was.hi is None or now.lo is None or now.hi is None:
        return "no interval"
    return "a change" if was.hi < now.lo or now.hi < was.lo else "within the intervals"


def _files(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    counts = {
        "added": len(set(now) - set(was)),
        "removed": len(set(was) - set(now)),
        "changed": sum(was[name] != now[name] for name in set(was) & set(now)),
    }
    return [f"{word}: {count}" for word, count in counts.items() if count]
