"""Whether the splits of a dataset are apart where they must be, and alike where they should be."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from echosyn.data.filelist import SPLITS


def nearest_in_other_splits(
    descriptors: np.ndarray, names: Sequence[str], splits: pd.Series
) -> pd.DataFrame:
    """For each video the most similar frame of a video of an earlier split: of TRAIN for VAL and
    TEST, of VAL for TEST.

    The search is exact, and its memory that of the descriptors. Its answer does not depend on the
    number of threads.

    Args:
        descriptors: float32 (N, 3, D) of `echosyn.validation.videos.describe`, zeros where there
            is no picture.
        names, splits: FileName and Split of the N videos.

    Returns:
        columns Nearest (similarity -1..1, NaN where there is nothing to compare with),
        NearestVideo and NearestSplit, None there; N rows.
    """
    out = pd.DataFrame({"Nearest": np.full(len(names), np.nan)})
    out["NearestVideo"], out["NearestSplit"] = None, None
    seen = np.asarray(descriptors.any(axis=2))  # (N, 3)
    split = splits.to_numpy()
    earlier = split == SPLITS[0]
    for name in SPLITS[1:]:
        query = np.flatnonzero((split == name) & seen.any(1))
        gallery = np.flatnonzero(earlier & seen.any(1))
        earlier |= split == name
        if len(query) == 0 or len(gallery) == 0:
            continue
        similarity, row = _search(descriptors[query], descriptors[gallery])
        match = gallery[row]
        out.loc[query, "Nearest"] = similarity
        out.loc[query, "NearestVideo"] = np.asarray(names, object)[match]
        out.loc[query, "NearestSplit"] = split[match]
    return out


def _search(queries: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Highest similarity of any frame of each query (N, 3, D) to any of the gallery (M, 3, D), and
    the gallery's video."""
    from echosyn.privacy.detectors.similarity import max_similarity

    frames, width = queries.shape[1:]
    values, rows = max_similarity(
        queries.reshape(-1, width), gallery.reshape(-1, width), progress="compare splits"
    )
    values, rows = values.reshape(-1, frames), rows.reshape(-1, frames)
    best = values.argmax(1)
    which = np.arange(len(values))
    return values[which, best], rows[which, best] // frames


def class_table(classes: pd.Series, splits: pd.Series) -> pd.DataFrame:
    """Class, Split, Rows and Share (of the split's videos that have a class), for each class and
    each split that has such a video."""
    given = classes.str.strip() != ""
    rows = pd.crosstab(classes[given].str.strip(), splits[given])
    present = [s for s in SPLITS if s in rows]
    return pd.DataFrame(
        [
            (name, s, float(rows.loc[name, s]), float(rows.loc[name, s] / rows[s].sum()))
            for name in rows.index
            for s in present
        ],
        columns=["Class", "Split", "Rows", "Share"],
    )


def drift_table(ef: pd.Series, splits: pd.Series, p: float) -> pd.DataFrame:
    """Two-sample Kolmogorov-Smirnov test of the EFs of every two splits.

    A large dataset makes any difference significant and a small one hides it, so both its size
    and its chance are kept.

    Returns:
        Pair, KS (largest difference of the two cumulative shares, 0-1), P, and BeyondChance: KS
        where P is below `p`, else 0. Splits with fewer than two EFs are not compared.
    """
    values = {s: ef[(splits == s) & ef.notna()].to_numpy() for s in SPLITS}
    rows = []
    for a, b in combinations(SPLITS, 2):
        if min(len(values[a]), len(values[b])) >= 2:
            test = ks_2samp(values[a], values[b], method="auto")
            ks, chance = float(test.statistic), float(test.pvalue)
            rows.append((f"{a}-{b}", ks, chance, ks if chance < p else 0.0))
    return pd.DataFrame(rows, columns=["Pair", "KS", "P", "BeyondChance"])
