"""The most similar real heart of each query, in memory that does not grow with their product."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from echosyn.runtime.errors import EchosynError
from echosyn.runtime.parallel import cores_apart
from echosyn.runtime.progress import bar

BLOCK = 512  # a tile of products is then 1 MB: it stays in a core's L2 cache
PARTS = 4  # of a tile, each with its own maximum: what is looked at again is a part
LONG = 2e12  # floating-point operations from which a progress bar is worth showing: seconds


def unit_rows(embeddings: np.ndarray, kind: str) -> np.ndarray:
    """Float32 rows whose inner product is the similarity.

    `kind` is "cosine", or "pearson" (rows centred first, as the reference's corrcoef does). A row
    with no length (all equal, for Pearson) becomes zeros, similar to nothing.

    Raises:
        EchosynError: not a table (N, D), or a row that is not finite.
    """
    x = np.array(embeddings, np.float64)  # a copy, which is worked on in place
    if x.ndim != 2 or x.size == 0:
        raise EchosynError(f"embeddings of shape {x.shape}; expected a table (N, D)")
    if not np.isfinite(x).all():
        bad = np.flatnonzero(~np.isfinite(x).all(1))
        raise EchosynError(f"embedding {bad[0]} is not finite ({len(bad)} such)")
    if kind not in ("cosine", "pearson"):
        raise ValueError(f"similarity {kind!r} is neither cosine nor pearson")
    scale = np.maximum(x.max(1), -x.min(1))
    if kind == "pearson":
        x -= x.mean(1, keepdims=True)
    length = np.sqrt(np.einsum("nd,nd->n", x, x))
    # Rounding leaves a constant row with a tiny length and a random direction.
    x /= np.where(length > 1e-9 * scale, np.maximum(length, 1e-300), np.inf)[:, None]
    return x.astype(np.float32)


def max_similarity(
    queries: np.ndarray, gallery: np.ndarray, block: int = BLOCK, progress: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Highest similarity of each query to any gallery row, and which row (the first, on ties).

    Exact: a similarity is the inner product in double precision, rounded to float32 once. Single
    precision only rules out: what its error bound leaves possible is computed again. So the answer
    depends neither on `block` nor on the number of threads.

    Args:
        queries: (N, D) and
        gallery: (M, D): rows of `unit_rows`.
        block: rows of either held in one product, so memory is O(N + M + block^2) a thread.
        progress: what to call the bar shown when this takes more than a few seconds; "": none.

    Returns:
        values float32 (N,) in -1..1, indices int64 (N,).

    Raises:
        EchosynError: an empty side, rows of different width, or a row that is not finite.
    """
    q, g = _rows("query", queries), _rows("gallery row", gallery)
    if len(q) == 0 or len(g) == 0:
        raise EchosynError(f"{len(q)} queries and {len(g)} gallery rows; need both")
    if q.shape[1] != g.shape[1]:
        raise EchosynError(f"queries of width {q.shape[1]}, gallery of {g.shape[1]}")
    # Twice the error of a sum of D products in any order (Higham 2002, Accuracy and Stability of
    # Numerical Algorithms, equation 3.5), and of the rounding after it.
    slack = 2 * (q.shape[1] + 4) * 2.0**-24 * g.norm(dim=1).max() * q.norm(dim=1)
    values = np.empty(len(q), np.float32)
    indices = np.empty(len(q), np.int64)
    part = max(1, block // PARTS)
    show = bool(progress) and 2.0 * q.numel() * len(g) > LONG

    def search(rows: slice) -> int:
        maxima = _part_maxima(q[rows], g, part * PARTS, part)
        possible = (maxima >= (maxima.amax(0) - slack[rows])).numpy()
        values[rows], indices[rows] = _decide(q[rows], g, possible, part)
        return rows.stop - rows.start

    with (
        bar(len(q), progress, "row", show=show) as shown,
        cores_apart() as workers,
        ThreadPoolExecutor(workers) as pool,
    ):
        rounds = -(-len(q) // (8 * block * workers))
        step = -(-len(q) // (rounds * workers))  # equal work, so that no thread waits at the end
        strips = [slice(i, min(i + step, len(q))) for i in range(0, len(q), step)]
        for done in pool.map(search, strips):
            shown.update(done)
    return np.clip(values, -1, 1), indices


def _rows(name: str, x: np.ndarray) -> Tensor:
    x = np.ascontiguousarray(x, np.float32)
    if x.ndim != 2:
        raise EchosynError(f"{name}s of shape {x.shape}; expected a table (N, D)")
    # One pass without a copy: the sum of squares of a row shows what is not finite in it.
    squares = np.einsum("nd,nd->n", x, x)
    if not np.isfinite(squares).all():
        raise EchosynError(f"{name} {np.flatnonzero(~np.isfinite(squares))[0]} is not finite")
    return torch.from_numpy(x)


def _part_maxima(rows: Tensor, gallery: Tensor, block: int, part: int) -> Tensor:
    """Single-precision maxima (parts, N) over each `part` rows of the gallery.

    Positions are not needed yet, and a tile of products fits the cache.
    `block` is a multiple of `part`.
    """
    maxima = torch.empty(-(-len(gallery) // part), len(rows))
    product = torch.empty(min(block, len(rows)) * min(block, len(gallery)))
    for j in range(0, len(gallery), block):
        columns = gallery[j : j + block].T
        whole = columns.shape[1] // part * part
        first, last = j // part, (j + whole) // part
        for a in range(0, len(rows), block):
            some = rows[a : a + block]
            tile = product[: len(some) * columns.shape[1]].view(len(some), -1)
            torch.mm(some, columns, out=tile)
            out = maxima[:, a : a + block]
            torch.amax(tile[:, :whole].unflatten(1, (-1, part)), 2, out=out[first:last].T)
            if whole < columns.shape[1]:
                torch.amax(tile[:, whole:], 1, out=out[last])
    return maxima


def _decide(
    rows: Tensor, gallery: Tensor, possible: np.ndarray, part: int
) -> tuple[np.ndarray, np.ndarray]:
    """Exact maxima and first positions, over the parts that `possible` (parts, N) leaves a row."""
    best = np.full(len(rows), -np.inf, np.float32)
    where = np.zeros(len(rows), np.int64)
    for t in np.flatnonzero(possible.any(1)):
        columns = gallery[t * part : (t + 1) * part].double().T
        left = np.flatnonzero(possible[t])
        for a in range(0, len(left), PARTS * part):
            some = left[a : a + PARTS * part]
            product = (rows[some].double() @ columns).float().numpy()
            column = product.argmax(1)
            found = product[np.arange(len(some)), column]
            better = found > best[some]
            best[some[better]] = found[better]
            where[some[better]] = column[better] + t * part
    return best, where
