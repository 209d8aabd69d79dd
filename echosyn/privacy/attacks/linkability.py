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
        success, control = (_by_frames(side, released) for side in sides)
        return {"frames": Attacked(success, control, chance)}
    success, control = (_by_labels(side, released, tolerances) for side in sides)
    return {"labels": Attacked(success, control, chance)}


def _by_frames(side: Records, released: Records) -> Rate:
    first, second = (nearest(frame, released) for frame in side.apart())
    return Rate.of(first == second)


def _by_labels(side: Records, released: Records, tolerances: dict[str, float]) -> Rate:
    apart = gaps(side, released, tolerances)
    stated = ~np.isnan(apart).all(1)
    by_labels = np.nan_to_num(apart[stated], nan=np.inf).argmin(1)
    return Rate.of(by_labels == nearest(side.look()[stated], released))
