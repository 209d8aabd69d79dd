"""Singling out: does what a released video shows describe exactly one TRAIN person?

The attacker makes a predicate of each released video, such as "looks like this video, with an EF
within 5 points and a heart rate within 5 beats a minute of its own", and succeeds when exactly one
person meets it. A predicate that meets a share w of all people singles out one of n by chance with
probability n w (1 - w)^(n - 1), up to 0.37 (Cohen & Nissim 2020, PNAS 117). All predicates are
therefore made equally rare: `matches` of n strangers meet one by chance. Three attackers:
`look` uses the embedding alone, `joint` embedding and labels, `labels` EF and rate alone.
"""

import numpy as np
from scipy import stats

from echosyn.privacy.attacks.records import Records, gaps, measured
from echosyn.privacy.attacks.risk import Attacked, Rate
from echosyn.runtime.errors import EchosynError

PREDICATES = 2000  # made of so many of the released videos, at most


def singling_out(
    members: Records,
    strangers: Records,
    released: Records,
    tolerances: dict[str, float],
    matches: float,
    seed: int,
) -> dict[str, Attacked]:
    """The three attackers; those with labels where all sides state EF, or all heart rate.

    Args:
        members, strangers: one video of each person.
        matches: strangers, of as many as are compared, that meet a predicate by chance: similarity
            must reach, or labels lie within, what that share of pairs of strangers do.

    More people are more to be singled out, and more who spoil it: both sides count in random groups
    of one size, one less than the smaller side has people. With more members than that, one whose
    video was copied is in a group as seldom as the group is smaller, and the risk is lower.
    `naive` is a predicate of that rarity that was made of nothing.

    Raises:
        EchosynError: a side of fewer than two people.
    """
    n = min(len(members), len(strangers)) - 1
    if n < 1:
        raise EchosynError(
            f"singling out among {len(members)} TRAIN people and {len(strangers)} others; it needs "
            "two of each: hold out more people"
        )
    released, weight = released.some(PREDICATES, seed), matches / n
    pairs = np.triu_indices(len(strangers), 1)
    chance = float(n * weight * (1 - weight) ** (n - 1))
    found = {}
    labelled = measured(members, strangers, released)
    for attacker in ("look", "joint", "labels") if labelled else ("look",):
        among = np.sort(_scores(attacker, strangers, strangers, tolerances)[pairs])
        least = among[-int(np.ceil(weight * len(among)))]
        scores = [_scores(attacker, side, released, tolerances) for side in (members, strangers)]
        success, control = (exactly_one((s >= least) & np.isfinite(s), n) for s in scores)
        found[attacker] = Attacked(success, control, chance)
    return found


def exactly_one(met: np.ndarray, n: int) -> Rate:
    """Share of predicates that exactly one of n people meets, over all groups of n of N people.

    Args:
        met: bool (N, J), which of J predicates each person meets. n: at most N - 1.

    A resample with replacement would hold people twice, whom nothing then singles out. The variance
    is the jackknife's over people, whose bias is upward (Efron & Stein 1981, Annals of Statistics
    9), and gives the number of independent predicates; where all or none succeed it is that of
    people, or of predicates where they are fewer.
    """
    people, predicates = met.shape
    counts = met.sum(0)
    every, without = (
        stats.hypergeom.pmf(1, size, np.arange(people + 1), n) for size in (people, people - 1)
    )
    share = float(every[counts].mean())
    # Leaving a person out takes one from the count of the predicates that they meet.
    rest = np.minimum(counts, people - 1)
    change = without[np.maximum(counts - 1, 0)] - without[rest]
    left_out = without[rest].mean() + met @ change / predicates
    variance = float((people - 1) * np.var(left_out))
    trials = float(min(people, predicates))
    if 0 < share < 1 and variance > 0:
        trials = min(share * (1 - share) / variance, predicates)
    return Rate(share, max(trials, 1.0))


def _scores(
    attacker: str, people: Records, others: Records, tolerances: dict[str, float]
) -> np.ndarray:
    """How well each person (N) meets the predicate made of each other video (M), at least -inf."""
    if attacker == "look":
        return people.look() @ others.look().T
    apart = gaps(people, others, tolerances)
    if attacker == "labels":
        return -np.nan_to_num(apart, nan=np.inf)
    return np.where(apart > 1, -np.inf, people.look() @ others.look().T)
