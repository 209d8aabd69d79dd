"""A release as a run that compares: the same few numbers of every release, what it was made of, and
how long that took."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Lasting names of the numbers to compare first, and the metric that each is. The names of distances
# carry their protocol, which a release may change: a tag has it.
HEADLINES = {
    "utility/ef_r2_synthetic": "ef/synthetic/r2",
    "utility/ef_r2_relabelled": "ef/synthetic_relabelled/r2",
    "utility/ef_r2_with_real": "ef/real_plus_synthetic/r2",
    "utility/ef_asked_measured_r": "ef/requested_vs_measured/r",
    "privacy/refused_hearts": "privacy/rejection_rate",
    "privacy/membership_auc": "privacy/membership_auc",
    "coverage/learned_fraction": "coverage/learned_fraction",
    "quality/motion_kd": r"quality/kd_motion_\d+f_n\d+x\d+",
    "quality/texture_spectrum_db": "us/spectrum_db",
    "quality/variance_in_time": "beat/motion",
}
COST = "cost/stage_hours"
VIEW = "headlines"  # key of the saved view


def headlines(metrics: Mapping[str, float]) -> dict[str, float]:
    """The numbers of HEADLINES that were measured, under their lasting names."""
    found = {}
    for name, pattern in HEADLINES.items():
        keys = sorted(key for key in metrics if re.fullmatch(pattern, key))
        if keys:
            found[name] = float(metrics[keys[0]])
    return found


def datasets(manifest: Mapping[str, Any], dataset: str, digest: str) -> list[dict[str, Any]]:
    """The release, and the real dataset that it was made from, as inputs of its run."""
    real = f"data/train/{dataset}"
    sets = [
        {
            "name": manifest["name"],
            "digest": digest[:8],
            "source": f"releases/{dataset}",
            "context": "release",
            "profile": {"videos": manifest["videos"], "version": manifest["version"]},
        }
    ]
    if md5 := manifest["lineage"]["data"].get(real):
        source = {"name": dataset, "digest": md5[:8], "source": real, "context": "training"}
        sets.append({**source, "profile": {"md5": md5}})
    return sets


def models(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """The models of a release's lineage, with the names they are registered under."""
    name = manifest["name"]
    return [
        {"path": path, "md5": md5, "registered": f"{name}-{_short(path)}"}
        for path, md5 in manifest["lineage"]["models"].items()
    ]


def _short(path: str) -> str:
    """models/ef/phantom/real to ef-phantom-real."""
    return "-".join(Path(path).parts[1:])
