"""From what hearts answered to numbers: variance explained, agreement, response, a verdict."""

from typing import Any

import cv2
import numpy as np
import pandas as pd

from echosyn.attribution.agreement import mean_estimate, pointing_numbers
from echosyn.attribution.design import HEART, NOISE, Design
from echosyn.attribution.experiment import GROUPS
from echosyn.attribution.response import response_numbers, verdict
from echosyn.attribution.variance import variance_shares
from echosyn.metrics.interval import Estimate

BLACK = 8  # grey levels; pixels that never exceed it are outside of the sector


def shown_ef(answers: dict[str, np.ndarray]) -> np.ndarray:
    """EF of every video by its traced volumes, percent, (hearts, *shape), NaN where not traced."""
    edv, esv = np.moveaxis(answers["volumes"], -1, 0)
    return 100 * (1 - esv / edv)


def maps_of(answers: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Where a factor acts by intervention, (hearts, H, W): variance of grey levels over its levels,
    the rest held; of the heart, over all of them in the middle cell."""
    if name != HEART:
        return answers[f"space/{name}"]
    frames = answers["frames"].astype(np.float32)
    return np.stack([np.square(frames - one).mean(axis=(0, 1)) for one in frames])


def gradient_maps(answers: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The same by gradient, mean over noise levels, at the frames' size."""
    size = answers["frames"].shape[-1]
    each = answers[f"gradient/{name}"].mean(axis=1)
    return np.stack([cv2.resize(m, (size, size), interpolation=cv2.INTER_CUBIC) for m in each])


def share_table(answers: dict[str, np.ndarray], design: Design) -> pd.DataFrame:
    """Share of the variance of the motion, and of EF shown, that each factor explains: columns
    outcome, factor, and first_order and total with `_lo` and `_hi`.

    EF shown is of the hearts all of whose videos were traced; left out where those are fewer than
    three."""
    names = [HEART, *(f.name for f in design.factors)]
    outcomes = {"motion": answers["motion"]}
    ef = shown_ef(answers)
    whole = np.isfinite(ef.reshape(len(ef), -1)).all(axis=1)
    if whole.sum() > 2:
        outcomes["shown_ef"] = ef[whole][..., None]
    rows: list[dict[str, Any]] = []
    for outcome, y in outcomes.items():
        for name, (first, total) in variance_shares(y, names).items():
            if name in (HEART, *design.varied, NOISE):
                rows.append({"outcome": outcome, "factor": name, **_row("first_order", first),
                             **_row("total", total)})  # fmt: skip
    return pd.DataFrame(rows)


def _row(name: str, value: Estimate) -> dict[str, float]:
    return {name: value.value, f"{name}_lo": value.lo, f"{name}_hi": value.hi}


def attribution_numbers(
    answers: dict[str, np.ndarray],
    shares: pd.DataFrame,
    design: Design,
    regions: np.ndarray | None,
    resamples: int,
    seed: int,
) -> dict[str, float | str]:
    """Flat numbers of a model at a guidance, by factor (heart, ef, class, rate, noise):

    - `<factor>/motion`, `/shown_ef`: first-order shares, and `..._total`; see `share_table`;
    - `<factor>/pointing`, `/iou` and their chance: the map by intervention against the ventricle at
      end-diastole; `/gradient_pointing`, `/gradient_iou`: by gradient;
    - `<condition>/early`, `/middle`, `/late`: share of its effect when it is changed in that third
      of the denoising alone;
    - `ef/monotone`, `/spearman`, `/slope`, `/shown`: the response; see `response_numbers`;
    - `verdict`: in words, where volumes were measured and EF was varied.

    Args:
        shares: of `share_table`. regions: the ventricle's place, bool (hearts, H, W), or None.
    """
    numbers: dict[str, float | str] = {}
    for row in shares.to_dict("records"):
        for kind, name in (("first_order", row["outcome"]), ("total", f"{row['outcome']}_total")):
            value = Estimate(row[kind], row[f"{kind}_lo"], row[f"{kind}_hi"])
            numbers |= value.flat(f"{row['factor']}/{name}")
    if regions is not None:
        seen = answers["frames"].max(axis=1) > BLACK
        for name in (HEART, *design.varied, NOISE):
            found = pointing_numbers(maps_of(answers, name), regions, seen, resamples, seed)
            numbers |= {f"{name}/{k}": v for k, v in found.items()}
            if name != NOISE:
                maps = gradient_maps(answers, name)
                found = pointing_numbers(maps, regions, seen, resamples, seed)
                numbers |= {f"{name}/gradient_{k}": v for k, v in found.items() if "_ch" not in k}
    for name in design.varied:
        for k, group in enumerate(GROUPS):
            each = answers[f"steps/{name}"][:, k]
            numbers |= mean_estimate(each, resamples, seed).flat(f"{name}/{group}")
    if "ef" in design.varied and regions is not None:
        axis = design.axis("ef")
        shown = np.moveaxis(shown_ef(answers), 1 + axis, 1)
        asked = np.array(design.factors[axis].levels)
        found = response_numbers(asked, shown, resamples, seed)
        numbers |= {f"ef/{k}": v for k, v in found.items()}
        nan = float("nan")
        slope = Estimate(*(found.get(f"slope{end}", nan) for end in ("", "_lo", "_hi")))
        numbers["verdict"] = verdict(slope)
    return numbers


def response_table(answers: dict[str, np.ndarray], design: Design) -> pd.DataFrame:
    """A row a video: heart, the levels of its cell, and EDV and ESV in pixels cubed and EF that it
    shows, NaN where it could not be traced."""
    cells = pd.DataFrame(design.cells())
    hearts = len(answers["volumes"])
    table = pd.concat([cells] * hearts, ignore_index=True)
    table.insert(0, "heart", np.repeat(np.arange(hearts), len(cells)))
    table["EDV"], table["ESV"] = answers["volumes"].reshape(-1, 2).T.round(2)
    return table.assign(shown_ef=shown_ef(answers).ravel().round(2))
