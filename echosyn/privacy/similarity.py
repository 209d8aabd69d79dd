"""The most similar real heart of each query, in memory that does not grow with their product."""

import numpy as np

from echosyn.errors import EchosynError

BLOCK = 1024


def unit_rows(embeddings: np.ndarray, kind: str) -> np.ndarray:
    """Float32 rows whose inner product is the similarity.

    `kind` is "cosine", or "pearson" (rows centred first, as the reference's corrcoef does). A row
    with no length (all equal, for Pearson) becomes zeros, similar to nothing.

    Raises:
        EchosynError: not a table (N, D), or a row that is not finite.
    """
    x = np.asarray(embeddings, np.float64)
    if x.ndim != 2 or x.size == 0:
        raise EchosynError(f"embeddings of shape {x.shape}; expected a table (N, D)")
    bad = np.flatnonzero(~np.isfinite(x).all(1))
    if len(bad):
        raise EchosynError(f"embedding {bad[0]} is not finite ({len(bad)} such)")
    if kind not in ("cosine", "pearson"):
        raise ValueError(f"similarity {kind!r} is neither cosine nor pearson")
    if kind == "pearson":
        x = x - x.mean(1, keepdims=True)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    # Rounding leaves a constant row with a tiny length and a random direction.
    scale = np.abs(np.asarray(embeddings, np.float64)).max(1, keepdims=True)
    return np.where(length > 1e-9 * scale, x / np.maximum(length, 1e-300), 0.0).astype(np.float32)


def max_similarity(
    queries: np.ndarray, gallery: np.ndarray, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """Highest similarity of each query to any gallery row, and which row (the first, on ties).

    Args:
        queries: (N, D) and
        gallery: (M, D): rows of `unit_rows`.
        block: rows of either held in one product, so memory is O(N + M + block^2).

    Returns:
        values float32 (N,) in -1..1, indices int64 (N,).

    Raises:
        EchosynError: an empty side, or rows of different width.
    """
    if len(queries) == 0 or len(gallery) == 0:
        raise EchosynError(f"{len(queries)} queries and {len(gallery)} gallery rows; need both")
    if queries.shape[1] != gallery.shape[1]:
        raise EchosynError(f"queries of width {queries.shape[1]}, gallery of {gallery.shape[1]}")
    values = np.full(len(queries), -np.inf, np.float32)
    indices = np.zeros(len(queries), np.int64)
    for i in range(0, len(queries), block):
        rows = queries[i : i + block]
        best, where = values[i : i + block], indices[i : i + block]  # views
        for j in range(0, len(gallery), block):
            product = rows @ gallery[j : j + block].T
            column = product.argmax(1)
            found = product[np.arange(len(rows)), column]
            better = found > best
            best[better] = found[better]
            where[better] = column[better] + j
    return np.clip(values, -1, 1), indices
