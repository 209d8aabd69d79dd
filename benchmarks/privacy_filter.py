"""The privacy filter's search: exact, blocked, and against the reference's formula.

1. 100,000 hearts against 16 frames of each of 7,465 training videos, 128 numbers each: seconds,
   rate, the share of this machine's own matrix product (float32, 4096 x 4096), and memory. The
   share is given by the clock and by CPU time; beside other work only the second means much.
2. The reference's rule at its own size (7,465 training, 1,277 test, 20,000 synthetic first frames):
   ours against its formula, a correlation matrix of everything stacked and a loop over its rows.
   The decisions must be the same: the line of JSON. The formula is NumPy's, in double precision;
   with torch in single, as its authors have it, it is timed once: it was the slower of the two.

python -m benchmarks.privacy_filter
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import compare, disagree, use_threads

THREADS = 2
use_threads(THREADS)

import torch  # noqa: E402

from echosyn.privacy.detectors.similarity import max_similarity, unit_rows  # noqa: E402

HEARTS, VIDEOS, FRAMES, WIDTH = 100_000, 7_465, 16, 128
TEST, SYNTHETIC = 1_277, 20_000
BATCH = 10_000  # synthetic rows that the reference stacks under its training rows at a time
PERCENTILE = 95
SIDE = 4096


@dataclass(frozen=True)
class Decisions:
    """Tau of the reference's rule, which hearts it lets pass, and each one's nearest."""

    tau: float
    public: np.ndarray
    nearest: np.ndarray


def embeddings(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sigmoid features (., 128) of people and of synthetic hearts, a tenth of them near copies."""
    r = np.random.default_rng(seed)
    real = r.standard_normal((VIDEOS + TEST, WIDTH), dtype=np.float32)
    synthetic = r.standard_normal((SYNTHETIC, WIDTH), dtype=np.float32)
    copied = r.integers(0, VIDEOS, SYNTHETIC // 10)
    synthetic[: len(copied)] = real[copied] + synthetic[: len(copied)] * r.random(
        (len(copied), 1), dtype=np.float32
    )
    features = 1 / (1 + np.exp(-np.concatenate([real, synthetic])))
    return features[:VIDEOS], features[VIDEOS : VIDEOS + TEST], features[VIDEOS + TEST :]


def formula(
    corrcoef: Callable[[np.ndarray], np.ndarray],
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], Decisions]:
    """The reference's filter: whole correlation matrices, of which rows are read one by one."""

    def decide(train: np.ndarray, test: np.ndarray, synthetic: np.ndarray) -> Decisions:
        matrix = corrcoef(np.concatenate([train, test]))
        closest = []
        for i in range(len(train)):
            closest.append(matrix[i, len(train) :].max())
        tau = np.percentile(closest, PERCENTILE)
        highest, nearest = [], []
        for start in range(0, len(synthetic), BATCH):
            part = synthetic[start : start + BATCH]
            matrix = corrcoef(np.concatenate([train, part]))
            for i in range(len(part)):
                row = matrix[len(train) + i, : len(train)]
                highest.append(row.max())
                nearest.append(row.argmax())
        return Decisions(float(tau), np.array(highest) < tau, np.array(nearest))

    return decide


def blocked(train: np.ndarray, test: np.ndarray, synthetic: np.ndarray) -> Decisions:
    """The same rule by the search that the filter uses."""
    rows = [unit_rows(x, "pearson") for x in (train, test, synthetic)]
    tau = np.percentile(max_similarity(rows[0], rows[1])[0], PERCENTILE)
    highest, nearest = max_similarity(rows[2], rows[0])
    return Decisions(float(tau), highest < tau, nearest)


def agreement(ours: Decisions, baseline: Decisions) -> str:
    differ = int((ours.public != baseline.public).sum())
    if differ or abs(ours.tau - baseline.tau) > 1e-6:
        disagree(f"{differ} decisions, tau {ours.tau} and {baseline.tau}")
    moved = int((ours.nearest != baseline.nearest).sum())
    return (
        f"all {len(ours.public)} decisions, {1 - ours.public.mean():.1%} refused, tau "
        f"{abs(ours.tau - baseline.tau):.0e} apart, {moved} nearest rows differ"
    )


def product_rate() -> tuple[float, float]:
    """GFLOP/s of a square float32 product, by the clock and by CPU time per thread."""
    a, out = torch.randn(SIDE, SIDE), torch.empty(SIDE, SIDE)
    torch.mm(a, a, out=out)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(4):
        torch.mm(a, a, out=out)
    work = 4 * 2 * SIDE**3 / 1e9
    return work / (time.perf_counter() - start), work / (time.process_time() - cpu)


def memory() -> tuple[float, float]:
    """Resident memory of this process, GB: now, and its peak since `forget_peak`."""
    fields = dict(x.split(":", 1) for x in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(fields[k].split()[0]) / 1e6 for k in ("VmRSS", "VmHWM"))


def forget_peak() -> float:
    """Let Linux count the peak anew; what is resident now, GB."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory()[0]


def large() -> None:
    """Print the first table."""
    r = np.random.default_rng(0)
    people = r.standard_normal((VIDEOS, WIDTH), dtype=np.float32)
    gallery = np.repeat(people, FRAMES, axis=0)
    gallery += 0.5 * r.standard_normal(gallery.shape, dtype=np.float32)
    hearts = r.standard_normal((HEARTS, WIDTH), dtype=np.float32)
    hearts += r.random((HEARTS, 1), dtype=np.float32) * people[r.integers(0, VIDEOS, HEARTS)]
    gallery, hearts = unit_rows(gallery, "cosine"), unit_rows(hearts, "cosine")
    max_similarity(hearts[:1000], gallery)
    own = [product_rate()]
    before = forget_peak()
    start, cpu = time.perf_counter(), time.process_time()
    _, indices = max_similarity(hearts, gallery)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    grown = memory()[1] - before
    own.append(product_rate())
    some = r.integers(0, HEARTS, 500)
    check = hearts[some].astype(np.float64) @ gallery.T.astype(np.float64)
    if not np.array_equal(check.argmax(1), indices[some]):
        disagree("500 hearts searched one by one name other rows")
    work = 2 * HEARTS * len(gallery) * WIDTH / 1e9
    clock, by_cpu = (max(x) for x in zip(*own, strict=True))
    print(f"{HEARTS} hearts x {len(gallery)} frames x {WIDTH}: {seconds:.1f} s")
    for name, rate, most in (
        ("the clock", work / seconds, clock),
        ("CPU time", work / cpu_seconds, by_cpu),
    ):
        print(f"by {name:9} {rate:4.0f} GFLOP/s, {rate / most:.0%} of the product's {most:.0f}")
    held = (hearts.nbytes + gallery.nbytes) / 1e9
    print(
        f"memory: {grown:.2f} GB above the {held:.2f} GB of the embeddings; all products: ", end=""
    )
    print(f"{HEARTS * len(gallery) * 4 / 1e9:.0f} GB\n")


def main() -> None:
    large()
    features = embeddings(0)
    plain = formula(np.corrcoef)
    before = forget_peak()
    ours = blocked(*features)
    grown, before = memory()[1] - before, forget_peak()
    agreement(ours, plain(*features))
    print(f"memory of 2.: ours {grown:.2f} GB, baseline {memory()[1] - before:.2f} GB")
    start = time.perf_counter()
    single = formula(lambda x: torch.corrcoef(torch.from_numpy(x)).numpy())(*features)
    seconds = time.perf_counter() - start
    print(f"the formula with torch.corrcoef: {seconds:.1f} s; {agreement(ours, single)}")
    compare(
        "privacy_filter",
        lambda: blocked(*features),
        lambda: plain(*features),
        agreement,
        n=SYNTHETIC,
        unit="hearts/s",
        repeats=2,
        warmup=0,
    )


if __name__ == "__main__":
    main()
