"""Linkability: does the release join two records of one TRAIN person?

The attacker has two tables without names, each with one part of what is known of the same people,
and joins two rows when the same released video is nearest to both (Giomi et al. 2023, PoPETs,
with one neighbour: more of them join strangers as well).
"""

import numpy as np

from echosyn.privacy.attacks.records import Records, gaps, nearest
from echosyn.privacy.attacks.risk import Attacked, Rate


def linkability(
    members: Records, strangers: Records, released: Records, tolerances: dict[str, float]
) -> dict[str, Attacked]:
    """Two attackers. `frames` joins one frame of either half of a person's video by how they look
    (whole halves look so alike that nine in ten strangers' are joined); `labels` joins how the
    video looks with EF, heart rate and class, where people and release state some in common.

    Args:
        members, strangers: one video of each person; their numbers may differ.

    `naive` joins at random.
    """
    chance = 1 / len(released)
    rates = [
        Rate.of(np.equal(*(nearest(frame, released) for frame in side.apart())))
        for side in (members, strangers)
    ]
    found = {"frames": Attacked(*rates, chance)}
    apart = [gaps(side, released, tolerances) for side in (members, strangers)]
    stated = [~np.isnan(gap).all(1) for gap in apart]
    if all(some.any() for some in stated):
        rates = []
        for side, gap, some in zip((members, strangers), apart, stated, strict=True):
            by_labels = np.nan_to_num(gap[some], nan=np.inf).argmin(1)
            rates.append(Rate.of(by_labels == nearest(side.look()[some], released)))
        found["labels"] = Attacked(*rates, chance)
    return found
