"""What changed between two releases, by their manifests."""

from collections.abc import Mapping
from typing import Any

from echosyn.runtime.lineage import flatten


def diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per difference: identity, parameters, inputs, numbers, then files by count."""
    lines = []
    for section in ("name", "version", "license", "params", "lineage", "metrics"):
        before = flatten({section: old.get(section)})
        after = flatten({section: new.get(section)})
        for key in sorted(set(before) | set(after)):
            if before.get(key) != after.get(key):
                lines.append(f"{key}: {before.get(key, '-')} -> {after.get(key, '-')}")
    was, now = old["files"], new["files"]
    changed = sum(was[name] != now[name] for name in set(was) & set(now))
    counts = {
        "added": len(set(now) - set(was)),
        "removed": len(set(was) - set(now)),
        "changed": changed,
    }
    lines += [f"files {word}: {count}" for word, count in counts.items() if count]
    return lines
