"""Attribute disclosure: does the release tell a TRAIN person's EF, heart rate or class?

Inference in Anonymeter's terms. The attacker has frames of the target, but not the attribute, and
predicts it from the labels of the release: of the released video that looks most alike, and by a
regression on how released videos look. A guess counts when it is within a tolerance.
"""

import numpy as np

from echosyn.privacy.attacks.records import Records, nearest
from echosyn.privacy.attacks.risk import Attacked, Rate

PENALTIES = np.logspace(-4, 4, 17)  # of ridge regression, over the mean squared singular value


def attribute_disclosure(
    members: Records, strangers: Records, released: Records, tolerances: dict[str, float]
) -> dict[str, Attacked]:
    """Two attackers, `<attribute>_nearest` and `<attribute>_regression`, per attribute stated by
    all three sides.

    Args:
        members, strangers: one video of each person: a person's success depends on no other's, so
            that the two sides need not be of one size. Who lacks an attribute is left out of it.
        tolerances: the largest error that counts as known; 0 for classes.

    `naive` guesses the one value that lies within the tolerance of most released labels.
    """
    found = {}
    for name in released.known():
        sides = [r.take(np.isfinite(r.labels[name])) for r in (released, members, strangers)
                 if np.isfinite(r.labels[name]).any()]  # fmt: skip
        if len(sides) < 3 or len(sides[0]) < 3:
            continue
        release, *targets = sides
        labels, within = release.labels[name], tolerances[name]
        predictors = {
            "nearest": [labels[nearest(side.look(), release)] for side in targets],
            "regression": _regression(release.look(), labels, [t.look() for t in targets], within),
        }
        guess = commonest(labels, within)
        naive = float(np.mean(np.abs(targets[0].labels[name] - guess) <= within))
        for how, guesses in predictors.items():
            success, control = (
                Rate.of(np.abs(side.labels[name] - guess) <= within)
                for side, guess in zip(targets, guesses, strict=True)
            )
            found[f"{name}_{how}"] = Attacked(success, control, naive)
    return found


def commonest(labels: np.ndarray, within: float) -> float:
    """The label (the lowest, of equals) that most of `labels` (N,) lie within a tolerance of."""
    ordered = np.sort(labels)
    last = np.searchsorted(ordered, ordered + within, "right")
    return float(ordered[np.argmax(last - np.searchsorted(ordered, ordered - within))])


def _regression(
    x: np.ndarray, labels: np.ndarray, targets: list[np.ndarray], within: float
) -> list[np.ndarray]:
    """Labels that ridge regression gives `targets`; of classes, that of the highest indicator."""
    if within:
        return [p[:, 0] for p in ridge(x, labels[:, None], targets)]
    classes = np.unique(labels)
    indicators = (labels[:, None] == classes).astype(np.float64)
    return [classes[p.argmax(1)] for p in ridge(x, indicators, targets)]


def ridge(x: np.ndarray, y: np.ndarray, targets: list[np.ndarray]) -> list[np.ndarray]:
    """Ridge regression of y (N, C) on x (N, D), at the one of PENALTIES with the least error
    leaving one row out (Golub et al. 1979, Technometrics 21), applied to each (M, D) of `targets`.
    """
    x = np.asarray(x, np.float64)
    centre, mean = x.mean(0), y.mean(0)
    u, s, vt = np.linalg.svd(x - centre, full_matrices=False)
    aligned = u.T @ (y - mean)
    best = (np.inf, aligned)
    for penalty in PENALTIES * np.mean(s**2):
        shrink = s**2 / (s**2 + penalty)
        leverage = 1 / len(x) + (u**2) @ shrink
        error = (y - mean - u @ (shrink[:, None] * aligned)) / np.maximum(1 - leverage, 1e-9)[
            :, None
        ]
        coefficients = (s / (s**2 + penalty))[:, None] * aligned
        best = min(best, (float(np.mean(error**2)), coefficients), key=lambda found: found[0])
    return [(t - centre) @ (vt.T @ best[1]) + mean for t in targets]
