"""Masks without labels, of phantoms as a perfect generator would draw them: without speckle, the
same heart at several EFs, its contour known."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from echosyn.attribution import weak
from echosyn.attribution.masks import _closed_path, cavity, find_seed, plausible
from echosyn.attribution.weak import FILE, PairMaker, read_pairs, relabelled, scores_on_test
from echosyn.data.filelist import EF_CENTRE, EF_SCALE
from echosyn.data.phantom import PhantomConfig, sample_anatomy
from echosyn.data.phantom.cycle import beat
from echosyn.data.phantom.drawing import build_scene, draw
from echosyn.data.phantom.sector import sector
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.models.condition import ConditionSpec
from echosyn.segmentation.contour import dice, filled
from echosyn.segmentation.task import TracedFrames

SMALL = PhantomConfig(train=1, val=1, test=1)
FPS, FRAMES, EFS = 16.0, 12, (25.0, 55.0, 80.0)


def drawn(index, ef):
    """Frames of a heart at an EF, from end-diastole, and the ventricle in them."""
    anatomy = replace(sample_anatomy(index, SMALL, 0), ef=ef, phase=0.0, bpm=75.0, breath=0.0,
                      papillary_db=-40.0)  # fmt: skip
    scene = build_scene(anatomy, beat(anatomy, np.arange(FRAMES) / FPS))
    frames = [sector(112).scan_convert(draw(scene, t).astype(np.float32)) for t in range(FRAMES)]
    return np.stack(frames).astype(np.uint8), np.stack([filled(c, 112) for c in scene.contour])


@pytest.fixture(scope="module")
def hearts():
    """Videos (EFs, T, H, W) and ventricles of a few hearts."""
    return [tuple(map(np.stack, zip(*(drawn(i, ef) for ef in EFS), strict=True))) for i in range(5)]


def test_the_chamber_that_ef_moves_is_found_and_masked(hearts):
    for videos, ventricles in hearts:
        seed = find_seed(videos)
        assert ventricles[:, :, *seed].all()
        for k, t in ((1, 0), (0, 5), (1, 5)):
            assert dice(cavity(videos[k, t], seed), ventricles[k, t]) > 0.9
        assert np.mean([dice(cavity(videos[1, t], seed), ventricles[1, t]) for t in (0, 5)]) > 0.93


def test_where_ef_moves_nothing_there_is_no_chamber(hearts):
    videos = hearts[0][0]
    assert find_seed(np.stack([videos[1]] * 3)) is None


@given(arrays(np.float64, (3, 4), elements=st.floats(-1, 1, width=16)))
def test_a_closed_path_keeps_to_its_jumps_and_is_the_cheapest(cost):
    path = _closed_path(cost, 3)  # which any column may follow
    assert cost[np.arange(3), path].sum() == pytest.approx(cost.min(axis=1).sum())
    tight = _closed_path(cost, 1)
    assert (np.abs(np.diff(tight)) <= 1).all()
    best = min(
        sum(cost[i, c] for i, c in enumerate(p))
        for p in product(range(4), repeat=3)
        if all(abs(a - b) <= 1 for a, b in zip(p, (*p[1:], p[0]), strict=True))
    )
    assert cost[np.arange(3), tight].sum() <= best + 0.5  # the rounds around it are not the same


def test_what_is_far_from_the_median_area_is_not_plausible():
    masks = np.zeros((5, 10, 10), bool)
    for k, rows in enumerate((5, 5, 6, 1, 10)):
        masks[k, :rows] = True
    assert plausible(masks).tolist() == [True, True, True, False, False]


class Perfect:
    """Stands for sampler and codec: draws the heart whose number the latent has at the EF asked."""

    model = type("M", (), {"spec": ConditionSpec(beat=0.08), "window": FRAMES})

    def denoised(self, noise, hearts, rows, generators):
        out = noise.clone()
        out[:, 0, 0, 0, 0], out[:, 0, 1, 0, 0] = hearts[:, 0, 0, 0], rows[:, 0]
        return out

    def decode(self, z):
        ef = float(z[0, 1, 0, 0]) * EF_SCALE + EF_CENTRE
        return drawn(int(z[0, 0, 0, 0]), ef if z[0, 0, 0, 0] < 20 else 55.0)[0]


def maker(numbers):
    latents = torch.zeros(len(numbers), 4, 14, 14)
    latents[:, 0, 0, 0] = torch.tensor(numbers, dtype=torch.float32)
    cfg = SampleVideosConfig(train=1, val=0, test=0, frames=FRAMES)
    efs = np.tile(EFS, (len(numbers), 1))
    return PairMaker(None, None, None, cfg, latents, efs, np.full(len(numbers), 75.0), FPS, 0)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Of nine hearts, the last of which EF does not move; and of one more that is real."""
    folder, own = tmp_path_factory.mktemp("pairs"), maker([0, 1, 2, 3, 4, 5, 6, 7, 25, 8])
    model = Perfect()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("VideoSampler", "VideoCodec"):
            patch.setattr(weak, name, lambda *_, **__: model)
        patch.setattr(weak.Vae, "load", lambda _: None)
        own.worker()(range(10), folder)
    return folder, read_pairs([folder], 9)


def test_pairs_are_two_phases_of_hearts_that_ef_moves(pairs):
    folder, found = pairs
    assert found.numbers == {"hearts": 8, "pairs": 32, "left_out": 0}
    assert found.seeds[8].tolist() == [-1, -1]
    assert found.seeds.shape == (10, 2)
    assert set(found.val.names) == {"heart 0", "heart 7"}
    assert found.all.diastole.sum() == 8
    for name in np.unique(found.all.names):
        rows = found.all.names == name
        areas = found.all.areas[rows]
        assert areas[2] > areas[1] > areas[3]  # end-diastole, then end-systole at 55 and at 80
    exact = drawn(3, 55.0)[1][0]
    mask = found.all.masks[(found.all.names == "heart 3") & found.all.diastole][0]
    assert dice(mask, exact) > 0.9
    with np.load(folder / FILE) as kept:
        assert len(kept["heart"]) == 36


def test_a_model_whose_hearts_ef_does_not_move_gives_no_pairs(pairs, tmp_path):
    assert "in 8 synthetic hearts only (8 and some to select on" in pairs[1].too_few  # 6 to learn
    with np.load(pairs[0] / FILE) as kept:
        none = {k: v if k == "seeds" else v[:0] for k, v in kept.items()}
    np.savez(tmp_path / FILE, **none)
    found = read_pairs([tmp_path], 9)
    assert found.numbers["pairs"] == 0
    assert "EF moves the ventricle in 0 synthetic hearts only" in found.too_few
    assert "raise `hearts` or `guidance` under weak_segmentation" in found.too_few


def test_scores_say_how_far_below_real_tracings_it_is(pairs):
    test = pairs[1].all
    dices = {"real": np.full(32, 0.98), "answers": np.full(32, 0.95)}
    numbers = scores_on_test(dices, test, 0)
    assert numbers["answers/below_real/dice_ed"] == pytest.approx(0.03)
    assert numbers["real/dice_es_hi"] == pytest.approx(0.98)
    assert "real/below_real/dice" not in numbers


def test_relabelled_frames_have_the_masks_of_the_model(pairs):
    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.one * torch.where(torch.arange(112) < 56, 5.0, -5.0).expand(x.shape)

    again = relabelled(pairs[1].val, Half())
    assert isinstance(again, TracedFrames)
    assert again.masks[:, :, :56].all()
    assert not again.masks[:, :, 56:].any()
    assert np.array_equal(again.frames, pairs[1].val.frames)
