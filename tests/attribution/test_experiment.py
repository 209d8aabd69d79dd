"""The whole experiment on models whose answers are known: one that draws the EF it is asked for,
and one that draws another."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from echosyn.attribution.design import AttributionConfig, Design, Factor, make_design
from echosyn.attribution.experiment import Experiment, measuring, real_hearts
from echosyn.attribution.numbers import attribution_numbers, response_table, share_table
from echosyn.data.filelist import EF_CENTRE, EF_SCALE
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.objectives import make_objective
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.encoding.codec import VideoCodec
from echosyn.models.condition import ConditionSpec
from echosyn.models.vae import Vae, VaeConfig
from echosyn.report.attribution_plots import attribution_figure
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_json
from tests.segmentation.test_segmentation import Bright
from tests.support.tiny_video import tiny_video

FRAMES, SIZE = 12, 112
CFG = SampleVideosConfig(
    train=1, val=0, test=0, frames=FRAMES, steps=3, guidance=1.0, precision="fp32", batch=4
)
EFS, RATES = (30.0, 45.0, 60.0, 75.0), (70.0, 90.0)
DESIGN = Design((Factor("ef", EFS), Factor("rate", RATES), Factor("noise", (0, 1))), 16.0)
Y, X = np.mgrid[:SIZE, :SIZE]


class Bump:
    """A denoiser whose output changes with EF where the ellipse is, or does not."""

    spec = ConditionSpec(beat=0.08)

    def __init__(self, ignores):
        self.ignores = ignores

    def __call__(self, x, t, heart, row):
        seen = 0 * row if self.ignores else row
        bump = torch.zeros_like(x)
        bump[:, :, :, 6:8, 6:8] = 1
        return x + bump * seen[:, 0].view(-1, 1, 1, 1, 1) + heart.mean()


class Drawing:
    """Stands for sampler and codec: an ellipse that beats with the EF and the rate of its row, a
    little off by the noise. `ignores`: with another EF than that of the row."""

    def __init__(self, ignores):
        self.ignores, self.cfg, self.student, self.device = ignores, CFG, None, torch.device("cpu")
        self.model = Bump(ignores)
        self.objective, self.evaluations = make_objective("flow"), 3

    def denoised(self, noise, hearts, rows, generators=None):
        last = rows[0] if isinstance(rows, list) else rows  # decided by the first step
        out = torch.zeros(noise.shape)
        for k, row in enumerate(last):
            wobble = float(noise[k].mean()) * 100
            ef = float(row[0]) * EF_SCALE + EF_CENTRE
            if self.ignores:
                ef = 50 + 7 * np.sin(1000 * wobble + 37 * ef + float(hearts[k].sum()))
            phase = torch.arange(FRAMES) * row[2]
            share = 1 - (0.02 * wobble + ef) / 100 * torch.sin(torch.pi * phase).clamp(min=0) ** 2
            out[k, :, 0, 0, 0] = (25 + hearts[k, 0, 0, 0]) * share ** (1 / 3)
        return out

    def decode(self, z):
        return np.stack([
            np.where(float(s) ** 2 > 4 * (X - 56) ** 2 + (Y - 56) ** 2, 255, 40).astype(np.uint8)
            for s in z[:, 0, 0, 0]
        ])  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["follows", "ignores"])
def asked(request):
    model = Drawing(request.param)
    hearts = torch.randn(5, 4, 14, 14, generator=torch.Generator().manual_seed(0))
    experiment = Experiment(model, model, DESIGN, hearts, Bright(), 0)
    each = [experiment.answer(i) for i in range(len(hearts))]
    answers = {name: np.stack([one[name] for one in each]) for name in each[0]}
    regions = np.stack([model.decode(torch.full((1, 4, 14, 14), 27.0))[0] > 200] * len(hearts))
    shares = share_table(answers, DESIGN)
    numbers = attribution_numbers(answers, shares, DESIGN, regions, 300, 0)
    return request.param, answers, shares, numbers, regions


def test_a_model_that_ignores_ef_shows_it(asked):
    ignores, _, _, numbers, _ = asked
    if ignores:
        assert numbers["verdict"] != "follows EF"
        assert abs(numbers["ef/slope"]) < 0.2
        assert numbers["ef/monotone"] < 0.2
        assert numbers["ef/shown_ef"] < 0.1
        assert numbers["ef/gradient_pointing"] == 0
    else:
        assert numbers["verdict"] == "follows EF"
        assert numbers["ef/slope"] == pytest.approx(1, abs=0.15)
        assert numbers["ef/monotone"] == 1
        assert numbers["ef/shown_ef"] > 0.9
        assert numbers["ef/gradient_pointing"] == 1
        assert numbers["ef/iou"] > numbers["ef/iou_chance"]
        # What an ellipse does is decided by the first step, which the first group has.
        assert numbers["ef/early"] == pytest.approx(1)
        assert numbers["ef/late"] == 0


def test_shares_and_response_are_tables_and_a_picture(asked):
    _, answers, shares, numbers, regions = asked
    assert set(shares["factor"]) == {"heart", "ef", "rate", "noise"}
    assert set(shares["outcome"]) == {"motion", "shown_ef"}
    table = response_table(answers, DESIGN)
    assert len(table) == 5 * 16
    assert list(table.columns) == ["heart", "ef", "rate", "noise", "EDV", "ESV", "shown_ef"]
    mean = table.groupby("ef")["shown_ef"].mean()
    assert (mean.diff().dropna() > 5).all() == (numbers["verdict"] == "follows EF")
    of = [shares.assign(guidance=g) for g in (1.0, 3.0)]
    figure = attribution_figure({1.0: answers, 3.0: answers}, of, DESIGN, regions)
    assert sum(len(part.axes) for part in figure.subfigs) == 7 + 4


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lvdm")
    tiny_video(FRAMES, ConditionSpec(classes=("a", "b"), beat=0.08), 14).save(folder)
    make_objective("flow").save(folder)
    torch.manual_seed(0)
    return VideoSampler(folder, CFG), VideoCodec(Vae.create(VaeConfig(widths=(8, 16, 16))), 8)


def test_a_derivative_is_the_limit_of_small_changes(networks):
    sampler, codec = networks
    factors = Factor("ef", (50.0, 70.0)), Factor("class", ("a", "b")), Factor("noise", (0, 1))
    design = Design(factors, 16.0)
    hearts = torch.randn(2, 4, 14, 14, generator=torch.Generator().manual_seed(1))
    experiment = Experiment(sampler, codec, design, hearts, None, 0)
    found = experiment.answer(0)
    assert np.isnan(found["volumes"]).all()
    assert found["motion"].shape == (2, 2, 2, FRAMES * 28 * 28)
    assert {n for n in found if n.startswith("gradient/")} == {
        f"gradient/{n}" for n in ("heart", "ef", "class")
    }
    noise = experiment._noise([0])[1]
    z, row = noise[0] * 0.5, experiment.rows[:1]
    span = torch.zeros_like(row)
    span[0, 0] = 1.0
    at = hearts[:1], row
    exact = experiment._derivative(z, noise, at, (torch.zeros_like(hearts[:1]), span), 0.7)
    x, _, t = sampler.objective.noisy(z[None], noise, torch.tensor([0.7]))
    with torch.no_grad():
        ends = [sampler.model(x, t, hearts[:1], row + s * span) for s in (-1e-2, 1e-2)]
        base = sampler.model(x, t, hearts[:1], row)[0].square().sum(1).mean().sqrt()
    change = ((ends[1] - ends[0])[0] / 2e-2).square().sum(dim=1).mean(dim=0).sqrt() / base
    assert exact == pytest.approx(change.numpy(), rel=0.02, abs=1e-4)


def test_rows_for_every_step_are_those_of_one_where_they_are_the_same(networks):
    sampler, _ = networks
    noise = torch.randn(1, FRAMES, 4, 14, 14, generator=torch.Generator().manual_seed(2))
    rows = sampler.model.spec.rows(2, torch.tensor([30.0, 70.0]), 16.0)
    first, last = rows[:1], rows[1:]
    whole = sampler.denoised(noise, noise[:, 0], first)
    assert torch.equal(whole, sampler.denoised(noise, noise[:, 0], [first] * 3))
    mixed = sampler.denoised(noise, noise[:, 0], [first, last, first])
    assert not torch.equal(mixed, whole)


def real(**columns):
    """What stands for TRAIN's latents."""
    known = {"ef": np.linspace(20, 80, 9, dtype=np.float32), "classes": ["a", "b"] * 4 + [None],
             "beats": np.full((9, 2), 70.0), "folder": "latents/train/x",
             "table": {"FPS": SimpleNamespace(iloc=[16.0])}}  # fmt: skip
    return SimpleNamespace(**{**known, **columns})


def settings(**values):
    return AttributionConfig(dataset="x", model="lvdm", hearts=3, steps=2, **values)


def test_levels_span_what_train_has_and_what_is_not_varied_stays_in_the_middle():
    spec = ConditionSpec(classes=("a", "b"), beat=0.08)
    design = make_design(spec, real(), settings(conditions=("ef",), efs=3))
    assert design.varied == ["ef"]
    assert design.shape == (3, 1, 1, 2)
    assert design.factors[0].levels == (21.5, 50.0, 78.5)
    whole = make_design(spec, real(), settings())
    assert whole.varied == ["ef", "class", "rate"]
    rows = whole.rows(spec, whole.cells())
    assert rows.shape == (5 * 2 * 2 * 2, spec.dim)
    assert len(rows.unique(dim=0)) == 10  # all rates are 70, and the noise is not in a row


def test_a_condition_that_the_dataset_lacks_is_refused_with_what_there_is():
    bare = real(classes=[None] * 9, beats=np.full((9, 2), np.nan))
    for spec, latents in ((ConditionSpec(), real()), (ConditionSpec(classes=("a",)), bare)):
        with pytest.raises(EchosynError, match=r"'class' is none that .* \(those are: ef\): set"):
            make_design(spec, latents, settings(conditions=("ef", "class")))
    with pytest.raises(
        EchosynError, match="knows no condition that this dataset has: set `dataset`"
    ):
        make_design(ConditionSpec(ef=False), bare, settings())


def test_a_dataset_without_masks_or_a_model_of_them_is_told_what_to_set(tmp_path, networks):
    write_json(tmp_path / "none.json", {"reason": "0 real videos are traced"})
    with pytest.raises(EchosynError, match=r"0 real videos are traced.*set ventricle: false"):
        measuring(tmp_path)
    (tmp_path / "FileList.csv").write_text(
        "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split\n"
        "a,50,50,100,112,112,32,24,TEST\n"
    )
    with pytest.raises(EchosynError, match=r"no video of TEST is traced.*set ventricle: false"):
        real_hearts(tmp_path, None, networks[1], 3, True)
