"""Copies of training patients, planted among the candidates: does the filter catch them?

A known TRAIN heart is planted exactly and under each disguise of AugmentConfig, from faint to
strong. The copies travel with honest candidates, so that a filter which looks at a whole batch at
once (one that scales by the extremes of the set, as the reference's does) is tested as it works.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from echosyn.metrics.interval import Estimate, clopper_pearson
from echosyn.models.reid import AugmentConfig, augment_latents
from echosyn.runtime.config import setting
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.progress import bar

Refuse = Callable[[Tensor], np.ndarray]  # candidates (N, ...) to bool (N,): kept out of the release
Augment = Callable[[Tensor, AugmentConfig, torch.Generator], Tensor]
NAMES = tuple(f.name for f in fields(AugmentConfig))


@dataclass(frozen=True)
class PlantedConfig:
    """Which copies are planted. `light` applies all of its disguises together."""

    light: AugmentConfig = setting(
        AugmentConfig(
            shift=0.5, zoom=0.04, gain=0.1, noise=0.1, flip=0.0, rotation=3.0, blur=0.3, crop=0.04
        ),
        help="the light disguise that the filter must see through",
    )
    full: AugmentConfig = setting(
        AugmentConfig(
            shift=3.0, zoom=0.3, gain=0.5, noise=1.0, flip=1.0, rotation=30.0, blur=2.0, crop=0.4
        ),
        help="each disguise at strength 1 of the curve",
    )
    strengths: tuple[float, ...] = setting(
        (0.125, 0.25, 0.5, 1.0), lo=0.0, hi=1.0, help="parts of `full` at which recall is measured"
    )
    copies: int = setting(300, lo=2, help="hearts planted at each strength, at most")

    def check(self) -> str | None:
        idle = [name for name in NAMES if getattr(self.full, name) == 0]
        if idle:
            return f"full.{idle[0]} is 0, so that this disguise would not be tested at all"
        if len(set(self.strengths)) < len(self.strengths) or 0.0 in self.strengths:
            return f"strengths {self.strengths} must be above 0 and differ (exact is always tested)"
        return None


@dataclass(frozen=True)
class PlantedResult:
    """Recall by disguise and strength.

    `curve` has a row per disguise and strength: disguise, strength, limit (in the disguise's own
    unit; NaN for `exact` and `light`), recall, recall_lo, recall_hi, copies, people.
    """

    curve: pd.DataFrame

    def recall(self, disguise: str, strength: float = 1.0) -> Estimate:
        row = self.curve[
            (self.curve["disguise"] == disguise) & (self.curve["strength"] == strength)
        ].iloc[0]
        return Estimate(row["recall"], row["recall_lo"], row["recall_hi"])

    def numbers(self, prefix: str = "privacy") -> dict[str, float]:
        """Flat numbers: exact and light recall with intervals, the curve by percent of `full`."""
        flat = {
            **self.recall("exact").flat(f"{prefix}/planted_exact_recall"),
            **self.recall("light").flat(f"{prefix}/planted_light_recall"),
        }
        for row in self.curve.itertuples():
            if row.disguise not in ("exact", "light"):
                percent = f"{100 * row.strength:g}".replace(".", "p")
                flat[f"{prefix}/planted_curve/{row.disguise}_{percent}"] = float(row.recall)
        return flat


def planted_curve(
    originals: Tensor,
    people: np.ndarray,
    pool: Tensor,
    refuse: Refuse,
    cfg: PlantedConfig,
    seed: int,
    augment: Augment = augment_latents,
    progress: str = "",
) -> PlantedResult:
    """Plant copies of `originals` among `pool`, and count those that `refuse` keeps out.

    Args:
        originals: (N, ...) TRAIN items whose patients the filter knows: hearts (N, C, h, w), or
            clips (N, T, C, h, w) with `augment=augment_clips`.
        people: (N,) the patient of each; intervals allow for a patient's copies being alike.
        pool: (K, ...) candidates of the same shape, such as drawn hearts; as many as there are
            copies go with them.
        refuse: the filter itself, deciding on a whole batch.
        progress: what to call the progress bar; "": none.

    The same draws serve every strength of a disguise: a curve changes by strength alone.

    Raises:
        EchosynError: nothing to plant, an empty pool, or a filter that decides on another number.
    """
    if len(originals) == 0 or len(pool) == 0 or originals.shape[1:] != pool.shape[1:]:
        raise EchosynError(
            f"planted copies: originals {tuple(originals.shape)} and pool {tuple(pool.shape)}; "
            "both must hold items, of one shape"
        )
    rng = np.random.default_rng([seed, 41])
    chosen = np.sort(rng.permutation(len(originals))[: cfg.copies])
    originals, people = originals[chosen], np.asarray(people)[chosen]
    others = pool[np.sort(rng.permutation(len(pool))[: len(chosen)])]
    place = rng.permutation(len(chosen) + len(others))  # where each candidate comes to stand

    def caught(disguise: AugmentConfig | None) -> Estimate:
        copies = originals
        if disguise is not None:
            copies = augment(originals, disguise, torch.Generator().manual_seed(seed))
        mixed = torch.empty((len(place), *originals.shape[1:]), dtype=copies.dtype)
        mixed[torch.as_tensor(place)] = torch.cat([copies, others.to(copies.dtype)])
        refused = np.asarray(refuse(mixed))
        if refused.shape != (len(mixed),):
            raise EchosynError(
                f"the filter decided on {refused.shape} candidates of {len(mixed)} given to it"
            )
        return share_interval(refused[place[: len(originals)]], people)

    still = dict.fromkeys(NAMES, 0.0)
    plans = [("exact", 1.0, np.nan, None), ("light", 1.0, np.nan, cfg.light)]
    for name in NAMES:
        for strength in sorted(cfg.strengths):
            limit = strength * getattr(cfg.full, name)
            plans.append((name, strength, limit, AugmentConfig(**{**still, name: limit})))
    rows = []
    with bar(len(plans), progress, "disguise", show=bool(progress)) as shown:
        for name, strength, limit, disguise in plans:
            rows.append((name, strength, limit, caught(disguise)))
            shown.update()
    table = pd.DataFrame(
        [(d, s, at, e.value, e.lo, e.hi) for d, s, at, e in rows],
        columns=["disguise", "strength", "limit", "recall", "recall_lo", "recall_hi"],
    )
    return PlantedResult(table.assign(copies=len(chosen), people=len(np.unique(people))))


def augment_clips(clips: Tensor, cfg: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Disguised copies of clips (N, T, C, h, w): one shift, turn and gain for all of a clip."""
    return augment_latents(clips.flatten(1, 2), cfg, generator).reshape(clips.shape)


def share_interval(hits: np.ndarray, people: np.ndarray, level: float = 0.95) -> Estimate:
    """Share of `hits` (N,) that are true, with an interval for hits of one person being alike.

    Clopper and Pearson's interval at the effective number of independent hits (Korn & Graubard
    1998, Survey Methodology 24), from the spread between persons; their own number where all or
    none are hits, since spread then tells nothing. One hit per person: Clopper-Pearson exactly.
    """
    hits = np.asarray(hits, np.float64)
    _, person = np.unique(people, return_inverse=True)
    if len(hits) == 0 or len(hits) != len(person):
        raise EchosynError(f"a share of {len(hits)} hits of {len(person)} persons' items")
    n, total, share = int(person.max()) + 1, len(hits), float(hits.mean())
    if n == 1:
        return Estimate(share, 0.0, 1.0)
    effective = float(n)
    if 0 < share < 1:
        variance = np.sum(np.bincount(person, hits - share) ** 2) / total**2
        df = stats.t.ppf(0.975, total - 1) / stats.t.ppf(0.975, n - 1)
        effective = min(total, share * (1 - share) * df**2 / max(variance, 1e-300))
    return clopper_pearson(share, effective, level)
