"""Membership inference and coverage of the released hearts."""

import torch

from echosyn.data.latents import LatentSet
from echosyn.evaluation.config import EvaluateConfig
from echosyn.privacy.audit import membership_auc
from echosyn.privacy.coverage import coverage_numbers, nearest_videos
from echosyn.privacy.embedding import HeartEncoder, frames_of, join, people_of


def privacy_numbers(
    latents: dict[str, LatentSet],
    released: torch.Tensor,
    encoder: HeartEncoder,
    cfg: EvaluateConfig,
    seed: int,
) -> dict[str, float]:
    """Membership inference and coverage of the released hearts (N, 4, h, w).

    Coverage is given at as many queries as there are held-out people, so that synthetic hearts and
    real held-out hearts, one a person, compare.
    """
    train, heldout = latents["TRAIN"], [latents["VAL"], latents["TEST"]]
    gallery_frames, rows = frames_of(train, cfg.hearts_per_person)
    gallery, names = encoder(gallery_frames), people_of(train)
    others, other_people = join(heldout, cfg.hearts_per_person)
    other_rows = encoder(others)
    queries = encoder(released)
    auc = membership_auc(gallery, names[rows], other_rows, other_people, queries, seed)
    one_each = other_rows[:: cfg.hearts_per_person]
    numbers = auc.flat("privacy/membership_auc")
    drawn, real = (nearest_videos(x, gallery, rows) for x in (queries, one_each))
    numbers |= coverage_numbers(drawn, real, len(train), seed, train.table["EF"].to_numpy())
    return numbers
