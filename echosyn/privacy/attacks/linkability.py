"""Linkability: does the release join two records of one TRAIN person?

The attacker has two tables without names, each with one part of what is known of the same people,
and joins two rows when the same released video is nearest to both (Giomi et al. 2023, PoPETs, with
one neighbour: more of them join strangers as well).
"""

import numpy as np

from echosyn.privacy.attacks.records import Records, gaps, measured, nearest
from echosyn.privacy.attacks.risk import Attacked, Rate


def linkability(
    members: Records, strangers: Records, released: Records, tolerances: dict[str, float]
) -> dict[str, Attacked]:
    """One attacker. `labels` joins how a person's video looks with their EF, heart rate and class:
    two echocardiograms of one person are joined without any release by who has such an encoder.
    Only where EF and heart rate are not stated, `frames` does join one frame of either half of the
    video; it works on half of all strangers, so that it tells less.

    Args:
        members, strangers: one video of each person; their numbers may differ.

    `naive` joins at random.
    """
    sides, chance = (members, strangers), 1 / len(released)
    if not measured(*sides, released):
        frames = [Rate.of(np.equal(*(nearest(f, released) for f in s.apart()))) for s in sides]
        return {"frames": Attacked(*frames, chance)}
    rates = []
    for side in sides:
        apart = gaps(side, released, tolerances)
        stated = ~np.isnan(apart).all(1)
        by_labels = np.nan_to_num(apart[stated], nan=np.inf).argmin(1)
        rates.append(Rate.of(by_labels == nearest(side.look()[stated], released)))
    return {"labels": Attacked(*rates, chance)}
