"""Attacks on our own filter and release: planted copies, and membership inference."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from echosyn.metrics.interval import Estimate
from echosyn.metrics.roc import auc_interval
from echosyn.models.reid import AugmentConfig, augment_latents
from echosyn.privacy.calibration import accepted
from echosyn.privacy.similarity import max_similarity


def planted_recall(
    originals: Tensor,
    gallery: np.ndarray,
    tau: float,
    embed: Callable[[Tensor], np.ndarray],
    disguise: AugmentConfig,
    generator: torch.Generator,
) -> dict[str, float]:
    """Share of planted copies of training hearts that the filter catches.

    Args:
        originals: (N, C, h, w) latents of TRAIN hearts, in the scaling that synthetic ones have.
        gallery: (M, D) unit embeddings of TRAIN frames.
        embed: latents to unit embeddings, exactly as the filter makes them.
        disguise: how far a disguised copy is moved, zoomed, amplified and noised.

    Returns:
        `exact` and `disguised`, each 0-1. Anything below 1 for `exact` means that the filter is
        broken or that tau lies above self-similarity.
    """
    copies = {
        "exact": originals,
        "disguised": augment_latents(originals, disguise, generator),
    }
    recall = {}
    for kind, latents in copies.items():
        similarities, _ = max_similarity(embed(latents), gallery)
        recall[kind] = float(1 - accepted(similarities, tau).mean())
    return recall


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
    similarities, _ = max_similarity(hearts, released)
    names, person = np.unique(people, return_inverse=True)
    best = np.full(len(names), -np.inf)
    np.maximum.at(best, person, similarities)
    return best
