"""Membership inference: can an attacker tell from the release who was trained on?

Every attacker scores people in a direction fixed beforehand (nearer, or better denoised, means
"was trained on"); 0.5 is a coin. Members are TRAIN people, others are held-out ones, with equally
many hearts each: a maximum over more is larger.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from echosyn.metrics.interval import Estimate, clopper_pearson, percentile_interval, resample_counts
from echosyn.metrics.roc import Roc, auc_interval
from echosyn.privacy.detectors.similarity import BLOCK, max_similarity
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError

if TYPE_CHECKING:  # diffusers takes seconds to import
    from echosyn.diffusion.objectives import Objective

Losses = Callable[[Tensor], np.ndarray]  # hearts (N, C, h, w) to losses (N,)
X = TypeVar("X", np.ndarray, Tensor)
ATTACKS = 7  # these four, and the three of echosyn.privacy.attacks.disclosure


@dataclass(frozen=True)
class AttackConfig:
    """How attackers are measured."""

    confidence: float = setting(
        0.95, lo=0.5, hi=0.9999, help="that all attacks on a harmless release find nothing"
    )
    resamples: int = setting(2000, lo=100, hi=100_000, help="bootstrap resamples of people")
    levels: tuple[float, ...] = setting(
        (0.2, 0.4, 0.6, 0.8), lo=0.001, hi=0.999, help="noise at which losses are taken; 1: only"
    )
    draws: int = setting(4, lo=1, help="noises per heart and level")

    @property
    def level(self) -> float:
        """Confidence of one attack's interval: Bonferroni's share of what all may err."""
        return 1 - (1 - self.confidence) / ATTACKS


@dataclass(frozen=True)
class Audience(Generic[X]):
    """Members and others as one attacker sees them: rows or hearts, and the person of each."""

    members: X
    member_people: np.ndarray
    others: X
    other_people: np.ndarray

    def matched(self, seed: int) -> "Audience[X]":
        """As many people on both sides, with as many hearts each, drawn from `seed`.

        Raises:
            EchosynError: a side without people.
        """
        rng = np.random.default_rng([seed, 43])
        sides = [np.asarray(self.member_people), np.asarray(self.other_people)]
        found = [np.unique(side, return_counts=True) for side in sides]
        if any(len(names) == 0 for names, _ in found):
            raise EchosynError("membership inference needs members and held-out people")
        people = min(len(names) for names, _ in found)
        hearts = min(int(counts.min()) for _, counts in found)
        kept = []
        for side, (names, _) in zip(sides, found, strict=True):
            chosen = set(np.sort(rng.permutation(len(names))[:people]).tolist())
            order = rng.permutation(len(side))  # which hearts of a person stay
            person = np.searchsorted(names, side)
            seen: dict[int, int] = {}
            rows = []
            for i in order:
                p = int(person[i])
                if p in chosen and seen.get(p, 0) < hearts:
                    seen[p] = seen.get(p, 0) + 1
                    rows.append(i)
            kept.append(np.sort(np.array(rows)))
        m, o = kept
        return Audience(self.members[m], sides[0][m], self.others[o], sides[1][o])


@dataclass(frozen=True)
class MembershipResult:
    """One estimate per attack, each with the interval of AttackConfig.level."""

    attacks: dict[str, Estimate]

    def numbers(self, prefix: str = "privacy") -> dict[str, float]:
        flat: dict[str, float] = {}
        for name, estimate in self.attacks.items():
            flat |= estimate.flat(f"{prefix}/membership_{name}")
        return flat


def membership_audit(
    embedded: Audience[np.ndarray],
    released_embedded: np.ndarray,
    hearts: Audience[Tensor],
    released: Tensor,
    losses: Losses | None,
    cfg: AttackConfig,
    seed: int,
) -> MembershipResult:
    """All attackers on one release.

    Args:
        embedded: unit embeddings of both sides, and `released_embedded` (R, D) of the release.
        hearts: latents or frames (N, C, h, w) of both sides, and `released` (R, C, h, w).
        losses: per-heart losses of the generator, such as a partial of `denoising_losses`; None
            leaves that attack out, and the outcome then says that it was not measured.

    Returns:
        `auc` (nearness of embeddings), `dcr_share`, `nn_auc` (distance in latents or pixels) and
        `loss_auc`.
    """
    one, raw = embedded.matched(seed), hearts.matched(seed)
    nearest = [
        _best(-nearest_distance(_flat(rows), _flat(released)), people)
        for rows, people in ((raw.members, raw.member_people), (raw.others, raw.other_people))
    ]
    attacks = {
        "auc": _auc(
            nearest_per_person(one.members, one.member_people, released_embedded),
            nearest_per_person(one.others, one.other_people, released_embedded),
            cfg,
            seed,
        ),
        "dcr_share": dcr_share(one, released_embedded, cfg.level),
        "nn_auc": _auc(nearest[0], nearest[1], cfg, seed),
    }
    if losses is not None:
        attacks["loss_auc"] = loss_auc(losses, raw, cfg, seed)
    return MembershipResult(attacks)


def membership_auc(
    members: np.ndarray,
    member_people: np.ndarray,
    others: np.ndarray,
    other_people: np.ndarray,
    released: np.ndarray,
    seed: int,
) -> Estimate:
    """Can nearness to the release tell who was trained on? 0.5: no better than a coin.

    The attacker scores each person by the highest similarity of any of their hearts to any
    released heart (Hilprecht et al. 2019, distance attack). Give members and others equally many
    hearts per person: a maximum over more is larger. The interval resamples people.

    Args:
        members: (N, D) unit embeddings of training people, of persons `member_people` (N,).
        others: (M, D) of held-out people, of persons `other_people` (M,).
        released: (R, D) of the released synthetic hearts.
    """
    scores = [
        nearest_per_person(x, people, released)
        for x, people in ((members, member_people), (others, other_people))
    ]
    return auc_interval(scores[0], scores[1], seed)


def nearest_per_person(hearts: np.ndarray, people: np.ndarray, released: np.ndarray) -> np.ndarray:
    """Each person's highest similarity to any released heart, (P,), persons in sorted order."""
    return _best(max_similarity(hearts, released)[0], people)


def dcr_share(sides: Audience[np.ndarray], released: np.ndarray, level: float = 0.95) -> Estimate:
    """Share of released hearts (R, D) whose closest record is a member's; 0.5 is chance.

    Both sides must hold as many people and hearts (Audience.matched). Equal distances count half.
    Who is near many released hearts is a matter of luck between people, so that released hearts
    are not independent: the interval is Clopper-Pearson's at the number of independent hearts
    that the spread of counts between people leaves. A release that was filtered against members
    lies below 0.5 by design.

    Raises:
        EchosynError: sides of different size, or an empty one.
    """
    if len(sides.members) != len(sides.others):
        raise EchosynError(
            f"closest record among {len(sides.members)} members' hearts and {len(sides.others)} "
            "others'; draw as many of both"
        )
    to_member, member = max_similarity(released, sides.members)
    to_other, other = max_similarity(released, sides.others)
    won = np.where(to_member == to_other, 0.5, to_member > to_other)  # (R,)
    counts = [
        _counts(sides.member_people, member, won),
        _counts(sides.other_people, other, 1 - won),
    ]
    share, r = float(won.mean()), len(released)
    if 0 < share < 1:
        weights = ((1 - share) ** 2, share**2)
        spread = sum(
            w * len(c) * np.var(c, ddof=1)
            for w, c in zip(weights, counts, strict=True)
            if len(c) > 1
        )
        effective = min(float(r), share * (1 - share) * r**2 / max(spread, 1e-300))
    else:  # all on one side: as many as there are people that won any
        effective = float(sum(np.count_nonzero(c) for c in counts))
    return clopper_pearson(share, effective, level)


def loss_auc(losses: Losses, hearts: Audience, cfg: AttackConfig, seed: int) -> Estimate:
    """Does the generator denoise the people it was trained on better than others?

    The attacker holds the generator, which a data release does not contain: what a release alone
    gives away is less. A person scores by the mean loss of their hearts, negated (Matsumoto et al.
    2023, arXiv 2302.03262; loss threshold of Yeom et al. 2018).
    """
    both = torch.cat([torch.as_tensor(hearts.members), torch.as_tensor(hearts.others)])
    values = -np.asarray(losses(both), np.float64)
    if values.shape != (len(both),):
        raise EchosynError(f"{values.shape} losses for {len(both)} hearts; expected one each")
    sides = np.split(values, [len(hearts.members)])
    people = (hearts.member_people, hearts.other_people)
    scores = [_mean(v, p) for v, p in zip(sides, people, strict=True)]
    return _auc(scores[0], scores[1], cfg, seed)


@torch.inference_mode()
def denoising_losses(
    model: nn.Module,
    objective: "Objective",
    hearts: Tensor,
    cfg: AttackConfig,
    seed: int,
    batch: int = 256,
) -> np.ndarray:
    """The image model's own training loss on each heart (N, C, h, w), float64 (N,).

    Averaged over `cfg.levels` of noise and `cfg.draws` noises each. Every heart meets the same
    noises, so that losses differ by heart and not by luck.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    total = np.zeros(len(hearts))
    for level in cfg.levels:
        for _ in range(cfg.draws):
            noise = torch.randn((1, *hearts.shape[1:]), generator=generator).to(device)
            for i in range(0, len(hearts), batch):
                x = hearts[i : i + batch].to(device)
                u = torch.full((len(x),), level, device=device)
                noisy, target, t = objective.noisy(x, noise.expand_as(x), u)
                error = (model(noisy, t).float() - target).square().flatten(1).mean(1)
                total[i : i + batch] += error.double().cpu().numpy()
    return total / (len(cfg.levels) * cfg.draws)


def nearest_distance(queries: np.ndarray, gallery: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """Euclidean distance (N,) of each row (N, D) to the nearest of (M, D), in blocks.

    The nearest is found through a product in float32 and its distance is then taken exactly: a
    copy has distance 0, not what rounding leaves.

    Raises:
        EchosynError: an empty side, or rows of different width.
    """
    if len(queries) == 0 or len(gallery) == 0 or queries.shape[1] != gallery.shape[1]:
        raise EchosynError(f"distances from {queries.shape} to {gallery.shape} rows")
    centre = gallery.mean(0, dtype=np.float64).astype(np.float32)
    half = 0.5 * np.square(gallery - centre).sum(1)
    found = np.empty(len(queries))
    for i in range(0, len(queries), block):
        rows = queries[i : i + block] - centre
        best = np.full(len(rows), np.inf, np.float32)
        where = np.zeros(len(rows), np.int64)
        for j in range(0, len(gallery), block):
            part = half[j : j + block] - rows @ (gallery[j : j + block] - centre).T
            column = part.argmin(1)
            value = part[np.arange(len(rows)), column]
            better = value < best
            best[better], where[better] = value[better], column[better] + j
        gap = queries[i : i + block].astype(np.float64) - gallery[where]
        found[i : i + block] = np.linalg.norm(gap, axis=1)
    return found


def _flat(x: np.ndarray | Tensor) -> np.ndarray:
    return np.asarray(x, np.float32).reshape(len(x), -1)


def _best(scores: np.ndarray, people: np.ndarray) -> np.ndarray:
    names, person = np.unique(people, return_inverse=True)
    best = np.full(len(names), -np.inf)
    np.maximum.at(best, person, scores)
    return best


def _mean(scores: np.ndarray, people: np.ndarray) -> np.ndarray:
    _, person = np.unique(people, return_inverse=True)
    return np.bincount(person, scores) / np.bincount(person)


def _counts(people: np.ndarray, nearest: np.ndarray, won: np.ndarray) -> np.ndarray:
    """How many released hearts each person won, (P,), those who won none included."""
    names, person = np.unique(people, return_inverse=True)
    return np.bincount(person[nearest], won, len(names))


def _auc(members: np.ndarray, others: np.ndarray, cfg: AttackConfig, seed: int) -> Estimate:
    """AUC of people's scores with a percentile interval at `cfg.level` that resamples people."""
    roc = Roc(members, others)
    seeds = np.random.SeedSequence([seed, 47]).generate_state(2)
    sides = [
        chain.from_iterable(resample_counts(len(side), cfg.resamples, int(s)))
        for side, s in zip((members, others), seeds, strict=True)
    ]
    drawn = np.array([roc.auc(m, o) for m, o in zip(*sides, strict=True)])
    return Estimate(roc.auc(), *percentile_interval(drawn, cfg.level))
