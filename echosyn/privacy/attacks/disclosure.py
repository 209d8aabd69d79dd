"""What a release gives away to whoever holds it: attribute disclosure, singling out, linkability.

The attacker has the released videos with their labels and, by attack, frames or labels of a target;
neither TRAIN nor any model. Each attack is tried on TRAIN people and on strangers to the generator,
and only the excess is a risk; it takes the two to be of one population, as random splits are.
"""

from echosyn.metrics.interval import Estimate
from echosyn.privacy.attacks.attribute import attribute_disclosure
from echosyn.privacy.attacks.linkability import linkability
from echosyn.privacy.attacks.records import DisclosureConfig, Records
from echosyn.privacy.attacks.risk import risk_numbers
from echosyn.privacy.attacks.singling_out import singling_out

TARGETS = 2000  # people attacked a side, at most


def disclosure_audit(
    members: Records,
    strangers: Records,
    released: Records,
    cfg: DisclosureConfig,
    level: float,
    seed: int,
) -> dict[str, float]:
    """Flat numbers of the three attacks, as `risk_numbers` names them.

    Args:
        members, strangers: one video of each TRAIN person and of each other. released: all videos.
        level: confidence of the interval of each attack.
    """
    sides = members.some(TARGETS, seed), strangers.some(TARGETS, seed), released
    tolerances = cfg.tolerances
    found = {
        "attribute": attribute_disclosure(*sides, tolerances),
        "singling_out": singling_out(*sides, tolerances, cfg.matches, seed),
        "linkability": linkability(*sides, tolerances),
    }
    numbers: dict[str, float] = {}
    for attack, attackers in found.items():
        numbers |= risk_numbers(attack, attackers, level)
    if not released.known():  # who states nothing tells no attribute: exactly, so no sampling error
        numbers |= Estimate(0.0, 0.0, 0.0).flat("privacy/attribute_risk")
    return numbers
