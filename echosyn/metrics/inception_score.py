"""Inception score from sums: exp of the mean divergence of a frame's classes from all frames'.

Per split (Salimans et al. 2016): exp((1/n) sum_i sum_c p_ic log p_ic - sum_c q_c log q_c), with q
the mean of p. The score is the mean over splits. Sums add up, so frames come in any order and
blocks can be left out.
"""

import numpy as np

from echosyn.metrics.interval import Estimate, jackknife_interval


class ScoreSums:
    """Per split: frames, sum of p log p, and sum of p over frames; float64 (splits, 2 + C)."""

    def __init__(self, splits: int, classes: int) -> None:
        self.sums = np.zeros((splits, 2 + classes))

    def add(self, probabilities: np.ndarray, split: np.ndarray) -> "ScoreSums":
        """Take in the classes (N, C) of frames and the split (N,) of each."""
        p = np.asarray(probabilities, np.float64)
        # A probability that underflowed to 0 adds 0, where p log p would be NaN.
        entropy = np.sum(p * np.log(np.where(p > 0, p, 1.0)), 1)
        for s in np.unique(split):
            rows = split == s
            self.sums[s, 0] += rows.sum()
            self.sums[s, 1] += entropy[rows].sum()
            self.sums[s, 2:] += p[rows].sum(0)
        return self


def inception_score(sums: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation (ddof 0) over the splits that have frames; sums (splits, 2+C)."""
    used = sums[sums[:, 0] > 0]
    if len(used) == 0:
        return float("nan"), float("nan")
    mean = used[:, 2:] / used[:, :1]
    marginal = np.sum(mean * np.log(np.where(mean > 0, mean, 1.0)), 1)
    scores = np.exp(used[:, 1] / used[:, 0] - marginal)
    return float(scores.mean()), float(scores.std())


def score_of_blocks(blocks: list[np.ndarray]) -> tuple[Estimate, float]:
    """Score with a 95 % interval by leaving out a block of videos at a time, and its deviation.

    Frames stay in their splits when a block is left out. The interval covers which videos were
    drawn; the deviation over splits is what papers print beside the score.
    """
    whole = np.sum(blocks, 0)
    value, deviation = inception_score(whole)
    if len(blocks) < 2:
        return Estimate(value, float("nan"), float("nan")), deviation
    left = np.array([inception_score(whole - block)[0] for block in blocks])
    return jackknife_interval(value, left), deviation
