"""What the stages after the gate need of a dataset, asked before anything is trained.

Each need is a number: so many people to calibrate a threshold, videos as long as a window, both
classes among those held out. A stage that finds out for itself does so after hours.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from echosyn.data.filelist import CLASS, PATIENT, SPLITS
from echosyn.data.video import resample_indices
from echosyn.metrics.interval import clopper_pearson
from echosyn.runtime.config import Params

HELD_OUT = ("VAL", "TEST")
MARKED = 6  # people without a mark with whom a detector can beat a coin (0.025^(1/n) > 1/2)
COLUMNS = ("Need", "Missing", "Sure", "Says")


class Task(NamedTuple):
    """A two-class task of section classify."""

    name: str
    ef_below: float | None
    classes: tuple[str, str] | None
    folds: int


@dataclass(frozen=True)
class Demands:
    """Numbers that the settings ask of one dataset; None where they do not say.

    fps, ef_fps: frames per second of latents and of the EF regressor. window, ef_frames, filtered:
    frames at those rates of a clip of the video model, of the regressor (both rates), and of what
    the filter of videos compares. hearts, videos: people of VAL whose hearts, or videos, calibrate
    a threshold. strange: people of VAL whose videos calibrate what is strange. planted: TRAIN
    videos whose copies are planted. widest: of an interval of the audit.
    """

    dataset: str
    role: str
    label: str
    generated: bool = False
    animated: bool = False
    with_anomaly: bool = False
    with_canary: bool = False
    fps: float | None = None
    window: int | None = None
    ef_fps: float | None = None
    ef_frames: int | None = None
    filtered: int | None = None
    hearts: int | None = None
    videos: int | None = None
    strange: int | None = None
    planted: int | None = None
    widest: float | None = None
    few_real: tuple[int, ...] = ()
    tasks: tuple[Task, ...] = ()


def read_demands(params: Params, dataset: str) -> Demands:
    """What params.yaml and the files of its scale ask of a dataset. Settings that are wrong are for
    their own stages to refuse."""
    entry, raw = params.dataset(dataset), params.raw

    def of(stage: str) -> dict[str, Any]:
        return params.settings(stage)[0]

    def people(stage: str, each: float) -> int | None:
        share = (of(stage).get("calibration") or {}).get("false_rejection")
        return math.ceil(each / share - 1e-9) if share else None

    encode, videos = of("encode"), of("sample_videos")
    filtered, made, rate = (
        of("filter_videos").get("frames"),
        videos.get("frames"),
        encode.get("fps"),
    )
    if made and rate:
        made = len(resample_indices(made, videos.get("fps") or rate, rate))
    symmetric = (of("privacy_filter").get("calibration") or {}).get("rule") != "reference"
    rate_of_strange = of("filter_videos").get("anomaly_rate")
    audit, arms = of("privacy_audit"), (raw.get("ef_arms") or {}).get(dataset) or {}
    return Demands(
        dataset, entry.role, entry.label,
        generated=dataset in (raw.get("generate") or []),
        animated=dataset in (raw.get("animate") or {}),
        with_anomaly=dataset in (raw.get("anomaly") or {}),
        with_canary=dataset in (raw.get("canary") or {}),
        fps=rate,
        window=of("train_lvdm").get("window"),
        ef_fps=of("train_ef").get("fps"),
        ef_frames=of("train_ef").get("frames"),
        filtered=min((n for n in (filtered, made) if n), default=None),
        hearts=people("privacy_filter", 1) if symmetric else None,
        videos=people("filter_videos", 2),
        strange=math.ceil(1 / rate_of_strange - 1e-9) if rate_of_strange else None,
        planted=max(
            (audit.get("planted") or {}).get("copies", 0),
            (audit.get("planted_videos") or {}).get("copies", 0),
        ) or None,
        widest=(audit.get("thresholds") or {}).get("widest"),
        few_real=_few_real(arms.get("arms") or []),
        tasks=tuple(_tasks(params, dataset)),
    )  # fmt: skip


def _few_real(arms: list[str]) -> tuple[int, ...]:
    shares = (arm.removeprefix("few_real_").partition("_")[0] for arm in arms if "few_real_" in arm)
    return tuple(sorted({int(share) for share in shares if share.isdigit()}))


def _tasks(params: Params, dataset: str) -> Iterator[Task]:
    folds = (
        params.settings("classify")[0].get("folds") if params.conf("classify").exists() else None
    )
    for name, task in (params.raw.get("classify") or {}).items():
        if isinstance(task, Mapping) and task.get("dataset") == dataset and folds:
            pair = (task.get("positive"), task.get("negative"))
            classes = (str(pair[0]), str(pair[1])) if all(pair) else None
            yield Task(str(name), task.get("ef_below"), classes, folds)


class Need(NamedTuple):
    """Something that stages need: what, and what is missing, with the remedy; None: nothing."""

    what: str
    missing: str | None
    sure: bool = True  # else the stages go on, to a poorer end


def needs_table(values: pd.DataFrame, text: pd.DataFrame, demands: Demands | None) -> pd.DataFrame:
    """A row for each need of a dataset: COLUMNS. Missing is None where it is met; Says is the whole
    of it for a person. No row without demands, or where the list has no splits.

    Args:
        values, text: the tables of `echosyn.validation.tables`.
    """
    rows = []
    if demands is not None and set(values["Split"]) & set(SPLITS):
        for need in _Dataset(values, text, demands).needs():
            says = f"{demands.dataset}: {need.missing}" if need.missing else need.what
            rows.append((need.what, need.missing, need.sure, says))
    return pd.DataFrame(rows, columns=list(COLUMNS))


class _Dataset:
    """A dataset's list, as its needs are counted on it."""

    def __init__(self, values: pd.DataFrame, text: pd.DataFrame, demands: Demands) -> None:
        self.values, self.text, self.demands = values, text, demands
        self.person = values[PATIENT] if PATIENT in values else values["FileName"]
        self.person = self.person.fillna(values["FileName"])
        self.split = {s: (values["Split"] == s).to_numpy() for s in SPLITS}
        self.total = len(values)

    def needs(self) -> Iterator[Need]:
        demands = self.demands
        if demands.role == "train":
            yield self._videos("TRAIN", 1, "models learn from them")
            yield from self._clips()
        if demands.role == "train" and demands.generated:
            yield from self._generated()
        if demands.animated:
            yield self._moving()
        if demands.with_canary:
            yield self._people(("TRAIN",), 2, "`canary` marks some and not others")
            yield self._people(HELD_OUT, MARKED, "`canary` needs people without a mark")
        if demands.with_anomaly and demands.strange:
            why = "so many calibrate what is strange (1 / anomaly_rate)"
            yield self._people(("VAL",), demands.strange, why)
            missing = None
            if not demands.generated:
                missing = (
                    "`anomaly` asks for it, and no videos are made of it: put it under generate"
                )
            yield Need("`anomaly` refuses synthetic videos", missing)
        for task in demands.tasks:
            yield from self._classes(task)

    def _generated(self) -> Iterator[Need]:
        demands = self.demands
        yield self._videos("TRAIN", 2, "distances between sets need two")
        yield self._videos("VAL", 1, "VAL stops and selects every training")
        yield self._people(("TRAIN",), 2, "people are distinguished")
        if demands.hearts:
            why = "so many calibrate the threshold of hearts (1 / false_rejection)"
            yield self._people(("VAL",), demands.hearts, why)
        if demands.videos and demands.filtered and demands.fps:
            long = self._frames(demands.fps) >= demands.filtered
            of = f" with {demands.filtered} frames at {demands.fps:g} a second"
            why = "so many calibrate the threshold of videos (2 / false_rejection)"
            yield self._people(("VAL",), demands.videos, why, long, of)
            yield self._people(("TEST",), 2, "the filter of videos is tried on them", long, of)
            yield self._videos("TRAIN", 1, "copies of them are planted", long, of)
        yield self._people(("TEST",), 2, "re-identification is measured on them")
        if demands.widest:
            least = _least_people(demands.widest)
            why = f"the audit cannot tell from fewer (`widest` {demands.widest:g})"
            yield self._people(("TEST",), least, why)
        if demands.planted and self._count("TRAIN") < demands.planted:
            yield Need(
                "copies of TRAIN videos are planted",
                f"the audit plants copies of {demands.planted} TRAIN videos and there are "
                f"{self._count('TRAIN')}: it plants fewer, and its recall tells less",
                sure=False,
            )
        yield from self._labels()

    def _labels(self) -> Iterator[Need]:
        demands = self.demands
        if demands.label == "ef" and "EF" in self.values:
            test = self.values["EF"][self.split["TEST"]].dropna()
            what = "TEST has EFs that differ"
            missing = None
            if len(test) and test.nunique() < 2:
                missing = f"every EF of TEST is {test.iloc[0]:g}: R2 and AUC cannot be measured"
            yield Need(what, missing, sure=False)
        if demands.few_real:
            what = "ef_arms train on shares of the real videos"
            if demands.label != "ef":
                yield Need(what, f"ef_arms needs label: ef, and it is {demands.label}")
            n = self._count("TRAIN")
            kept = {share: max(round(n * share / 100), min(2, n)) for share in demands.few_real}
            twice = [s for s in kept if list(kept.values()).count(kept[s]) > 1]
            missing = None
            if twice:
                named = " and ".join(f"few_real_{s}" for s in twice)
                missing = f"{named} are the same {kept[twice[0]]} of {n} TRAIN videos"
            yield Need(what, missing, sure=False)

    def _clips(self) -> Iterator[Need]:
        """Videos as long as what models look at; the end of a shorter one is held."""
        demands = self.demands
        lengths = {
            "the video model": (demands.window, demands.fps),
            "the EF regressor": (demands.ef_frames, demands.ef_fps),
        }
        for model, (n, fps) in lengths.items():
            if not (n and fps) or (model == "the EF regressor" and demands.label != "ef"):
                continue
            asked = f"{model} looks at {n} frames at {fps:g} a second ({(n - 1) / fps:.2f} s) and"
            frames = self._frames(fps)
            train, known = self.split["TRAIN"], np.isfinite(frames)
            short = known & (frames < n)
            count = int((train & short).sum())
            missing = f"{asked} {count} of {self._count('TRAIN')} TRAIN videos are shorter"
            if count and count == (train & known).sum():
                remedy = "give longer ones, or lower the frames or the rate in conf"
                yield Need(f"videos as long as {model} looks at", f"{missing}: {remedy}")
            else:
                first = f", from line {self.values['Line'][np.argmax(train & short)]}"
                yield Need(
                    f"all videos as long as {model} looks at",
                    f"{missing}{first}: their last frame is held" if count else None,
                    sure=False,
                )

    def _classes(self, task: Task) -> Iterator[Need]:
        if task.ef_below is not None and "EF" in self.values:
            low = (self.values["EF"] < task.ef_below).to_numpy()
            kinds = {f"EF below {task.ef_below:g}": low, f"EF of {task.ef_below:g} or more": ~low}
        elif task.classes and CLASS in self.text:
            given = self.text[CLASS].str.strip()
            kinds = {f"class {c}": (given == c).to_numpy() for c in task.classes}
        else:
            return
        held_out = self.split["VAL"] | self.split["TEST"]
        for kind, mask in kinds.items():
            people = self.person[mask].nunique()
            what = f"`classify` {task.name} has enough of {kind}"
            if people < task.folds:
                yield Need(what, f"`classify` {task.name} takes {task.folds} folds of people and "
                           f"{people} have {kind}: lower folds, or leave the task out")  # fmt: skip
            elif not (mask & held_out).any():
                yield Need(what, f"`classify` {task.name} is scored on VAL and TEST and nobody "
                           f"there has {kind}")  # fmt: skip
            else:
                yield Need(what, None)

    def _moving(self) -> Need:
        what = "`animate` takes videos that move"
        if not self.demands.fps:
            return Need(what, None)
        short = self._frames(self.demands.fps) < 2
        missing = None
        if short.any():
            missing = (
                f"{int(short.sum())} of {self.total} videos have fewer than 2 frames at "
                f"{self.demands.fps:g} a second, from line {self.values['Line'][np.argmax(short)]}"
            )
        return Need(what, missing)

    def _count(self, split: str) -> int:
        return int(self.split[split].sum())

    def _videos(
        self, split: str, least: int, why: str, among: np.ndarray | None = None, of: str = ""
    ) -> Need:
        there = self.split[split] if among is None else self.split[split] & among
        return self._need(split, int(there.sum()), self.total, least, f"videos{of}", why)

    def _people(
        self, splits: tuple[str, ...], least: int, why: str, among: np.ndarray | None = None,
        of: str = "",
    ) -> Need:  # fmt: skip
        there = np.any([self.split[s] for s in splits], axis=0)
        there = there if among is None else there & among
        kind = "people" if PATIENT in self.values else "videos"
        count, total = self.person[there].nunique(), self.person.nunique()
        return self._need(" and ".join(splits), count, total, least, f"{kind}{of}", why)

    def _need(self, split: str, count: int, total: int, least: int, kind: str, why: str) -> Need:
        what = f"{split} has {least} {kind} or more: {why}"
        if count >= least:
            return Need(what, None)
        remedy = "give splits, or role guest" if self.demands.role == "train" else "give splits"
        role = f"has role {self.demands.role} and {split} has {count} of {total} {kind}"
        return Need(what, f"{role}, where {least} are needed, since {why}: {remedy}")

    def _frames(self, fps: float) -> np.ndarray:
        """Frames of each video at a rate, float (N,), NaN where it cannot be read; as
        `resample_indices` counts them."""
        n, own = self.values["MeasuredNumberOfFrames"], self.values["MeasuredFPS"]
        return np.maximum(1, np.floor((n - 1) / own * fps + 1e-6) + 1).to_numpy()


def _least_people(widest: float) -> int:
    """People whose share without a miss has a 95 % interval (Clopper-Pearson) no wider."""
    n = 1
    while n < 10_000 and 1 - clopper_pearson(1.0, n).lo > widest:
        n += 1
    return n
