"""The beat: rate and phase from curves, tracings, the table, and the phantom's own cycle."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from echosyn.beat.curve import LEAST, circular_mean, fit_beats
from echosyn.beat.lv_area import BeatsConfig, LvAreaTask, area_curves, beat_table, traced_frames
from echosyn.beat.tracings import traced_areas
from echosyn.data.beats import draw_beats, first_phases, read_beats, write_beats
from echosyn.data.latents import LatentSet, pack, write_index, write_shard
from echosyn.data.phantom import PhantomConfig, render_patient
from echosyn.data.phantom.anatomy import sample_anatomy
from echosyn.data.phantom.cycle import beat
from echosyn.models.vae import LATENT_CHANNELS
from echosyn.runtime.config import build
from echosyn.runtime.errors import EchosynError

FPS = 16.0


def wave(rate, phase, frames=32, fps=FPS, second=0.3):
    turn = 2 * np.pi * (phase + rate / 60 * np.arange(frames) / fps)
    return np.cos(turn) + second * np.cos(2 * turn + 0.4)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    rate=st.floats(50, 150),
    phase=st.floats(0, 1),
    scale=st.floats(0.01, 100),
    slope=st.floats(-0.5, 0.5),
)
def test_a_beat_is_found_whatever_its_size_and_drift(rate, phase, scale, slope):
    curve = scale * (wave(rate, phase) + slope * np.arange(32) / FPS + 7)
    found = fit_beats([curve], FPS)
    assert found.rate[0] == pytest.approx(rate, abs=1.5)
    apart = (found.phase[0] - phase + 0.5) % 1 - 0.5
    assert abs(apart) < 0.05
    assert found.share[0] > 0.98


def test_what_does_not_beat_is_not_sure():
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=64) for _ in range(20)]
    found = fit_beats([*noise, np.ones(64), np.arange(64.0), wave(80, 0.2, frames=7)], FPS)
    assert not found.sure.any()
    assert np.isnan(found.phase).all()
    assert (found.share[:20] < 0.7).all()
    frames = int(LEAST * FPS) - 1  # less than LEAST beats at 60 a minute
    rate = fit_beats([wave(60, 0.0, frames)], FPS).rate
    assert not (rate / 60 * frames / FPS < LEAST).any()


def test_curves_of_other_lengths_keep_their_places():
    curves = [wave(60, 0.1, 40), wave(120, 0.7, 64), wave(90, 0.4, 40)]
    found = fit_beats(curves, FPS)
    assert found.rate.round().tolist() == pytest.approx([60, 120, 90], abs=1)
    assert found.phase.tolist() == pytest.approx([0.1, 0.7, 0.4], abs=0.03)


def test_the_circular_mean_knows_that_0_and_1_are_neighbours():
    mean, length = circular_mean(np.array([0.95, 0.05]))
    assert mean == pytest.approx(0, abs=1e-9)
    assert length == pytest.approx(np.cos(0.1 * np.pi))
    assert circular_mean(np.array([0.0, 0.25, 0.5, 0.75]))[1] == pytest.approx(0, abs=1e-9)


def test_areas_are_those_of_both_kinds_of_tracing(tmp_path):
    chords = ["FileName,X1,Y1,X2,Y2,Frame"]
    for frame, width in ((3, 10), (9, 5)):
        chords.append(f"a.avi,0,0,0,20,{frame}")
        chords += [f"a.avi,0,{y},{width},{y},{frame}" for y in range(1, 4)]
    path = tmp_path / "VolumeTracings.csv"
    path.write_text("\n".join(chords))
    assert traced_areas(path) == {"a": {3: 200.0, 9: 100.0}}
    square = [(0, 0), (4, 0), (4, 5), (0, 5)]
    rows = [f"b.avi,{x},{y},{f}" for f in (0, 1) for x, y in square]
    path.write_text("\n".join(["FileName,X,Y,Frame", *rows, "c.avi,0,0,5"]))
    assert traced_areas(path) == {"b": {0: 20.0, 1: 20.0}}  # c has but one frame
    path.write_text(path.read_text() + "\nb.avi,1,1,No Systolic\n")
    assert traced_areas(path) == {"b": {0: 20.0, 1: 20.0}}
    assert traced_areas(tmp_path / "none.csv") == {}
    path.write_text("FileName,X,Y,Frame\na.avi,1,east,3\n")
    with pytest.raises(EchosynError, match="line 2: Y 'east' is no finite number"):
        traced_areas(path)
    path.write_text("FileName,Frame\na.avi,3\n")
    with pytest.raises(EchosynError, match=r"expected columns FileName, Frame and X1.* found File"):
        traced_areas(path)


def test_a_table_that_is_not_of_the_videos_is_refused(tmp_path):
    with pytest.raises(EchosynError, match=r"beats\.csv does not exist: run the stage beats"):
        read_beats(tmp_path, ["a"])
    table = pd.DataFrame(
        {"FileName": ["a", "b"], "HeartRate": [80.0, np.nan], "Phase": [0.25, np.nan], "Share": 0.9}
    )
    write_beats(tmp_path, table)
    found = read_beats(tmp_path, ["b", "a"])
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [80.0, 0.25]
    with pytest.raises(EchosynError, match="no row of c"):
        read_beats(tmp_path, ["a", "c"])


class Train:
    def __init__(self, rates, ef):
        self.beats = np.column_stack([rates, np.zeros(len(rates))])
        self.ef = np.array(ef)


def test_rates_are_drawn_among_those_of_the_nearest_ef():
    rates = np.r_[np.full(40, 60.0), np.full(40, 100.0), np.nan]
    train = Train(rates, [30.0] * 40 + [70.0] * 40 + [50.0])
    drawn = draw_beats(train, np.array([30.0] * 200 + [70.0] * 200), seed=1)
    assert np.array_equal(drawn, draw_beats(train, np.array([30.0] * 200 + [70.0] * 200), 1))
    assert ((drawn >= 60) & (drawn <= 100)).all()
    assert (drawn[:200] < 75).all()
    assert (drawn[200:] > 85).all()
    both = draw_beats(train, np.full(400, np.nan), seed=1)
    assert 0.4 < (both < 80).mean() < 0.6
    assert np.isnan(draw_beats(Train(np.full(3, np.nan), [1.0] * 3), np.array([5.0]), 0)).all()


def test_first_phases_are_uniform_and_each_index_own():
    phases = first_phases(np.arange(500), seed=3)
    assert np.histogram(phases, 4, (0, 1))[0].min() > 90
    assert np.array_equal(first_phases(np.array([7, 3]), 3), phases[[7, 3]])


CONFIG = PhantomConfig(train=24, val=4, test=8, frames=64)


class Brightness(nn.Module):
    """Stands for a trained network: what it makes of a frame is in its first channel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x[:, 0].mean((1, 2)) * self.weight


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Latents whose first channel is the phantom's own LV area, noisy, at half the frame rate; and
    the data they are of."""
    root = tmp_path_factory.mktemp("phantoms")
    rng, shard, rows, listed, lines = np.random.default_rng(0), {}, [], [], []
    for i in range(CONFIG.videos):
        anatomy = sample_anatomy(i, CONFIG, 0)
        volume = beat(anatomy, np.arange(CONFIG.frames) / CONFIG.fps).volume
        area = volume ** (2 / 3)
        z = torch.zeros(CONFIG.frames // 2, 8, 6, 6)
        level = (np.sqrt(area[::2]) - 4) + rng.normal(0, 0.03, CONFIG.frames // 2)
        z[:, 0] = torch.from_numpy(level)[:, None, None]
        shard[f"v{i}"] = pack(z[:, :LATENT_CHANNELS], z[:, LATENT_CHANNELS:])
        split = CONFIG.split(i)
        rows.append((f"v{i}", anatomy.ef, split, CONFIG.fps / 2, CONFIG.frames // 2, "s"))
        listed.append((f"v{i}", CONFIG.fps))
        for frame in (int(area.argmin()), int(area.argmax())):
            lines += [f"v{i}.avi,0,0,0,10,{frame}", f"v{i}.avi,0,1,{area[frame] / 10},1,{frame}"]
    (root / "latents").mkdir()
    write_shard(root / "latents/s", shard)
    columns = ["FileName", "EF", "Split", "FPS", "NumberOfFrames", "Shard"]
    write_index(root / "latents", pd.DataFrame(rows, columns=columns))
    (root / "data").mkdir()
    pd.DataFrame(listed, columns=["FileName", "FPS"]).to_csv(root / "data/FileList.csv")
    (root / "data/VolumeTracings.csv").write_text("\n".join(["FileName,X1,Y1,X2,Y2,Frame", *lines]))
    return root


def test_rate_and_phase_are_those_of_the_phantoms_cycle(phantoms):
    latents = LatentSet(phantoms / "latents")
    traced = traced_frames(LatentSet(phantoms / "latents", "TRAIN"), phantoms / "data")
    assert traced.videos == 24
    curves = area_curves(Brightness(), latents)
    table, numbers = beat_table(latents, curves, traced)
    assert numbers["beats/anchor"] > 0.85
    assert numbers["beats/sure"] > 0.9
    true = [sample_anatomy(i, CONFIG, 0) for i in range(CONFIG.videos)]
    bpm, phase = (np.array([getattr(a, k) for a in true]) for k in ("bpm", "phase"))
    held = (latents.table["Split"] != "TRAIN").to_numpy() & table["HeartRate"].notna().to_numpy()
    middle = 1.0  # seconds: where an error of the rate and one of the phase count alike
    found = table["Phase"] + table["HeartRate"] / 60 * middle
    wrong = (found - phase - bpm / 60 * middle + 0.5) % 1 - 0.5
    assert np.median(np.abs(wrong[held])) * 360 < 15
    assert np.median(np.abs(table["HeartRate"] / bpm - 1)[held]) < 0.02


def test_without_an_anchor_no_beat_is_known(phantoms):
    """Tracings at frames that have nothing to do with the beat."""
    latents = LatentSet(phantoms / "latents")
    traced = traced_frames(LatentSet(phantoms / "latents", "TRAIN"), phantoms / "data")
    rng = np.random.default_rng(1)
    traced.number[:] = rng.integers(0, 32, len(traced.number))
    curves = area_curves(Brightness(), latents)
    table, numbers = beat_table(latents, curves, traced)
    assert table["HeartRate"].isna().all()
    assert numbers["beats/sure"] == 0


def test_the_network_learns_the_traced_areas(phantoms):
    traced, held = (
        traced_frames(LatentSet(phantoms / "latents", s), phantoms / "data")
        for s in ("TRAIN", "VAL")
    )
    loop = {"steps": 1, "batch": 8, "lr": 3e-3}
    task = LvAreaTask(build(BeatsConfig, {"loop": loop, "width": 8}, "test"), traced, held)
    torch.manual_seed(0)
    model = task.build()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(60):
        rng = np.random.default_rng(step)
        loss, _ = task.loss(model, task.batch(rng.integers(0, task.size, 16), rng))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert task.validate(model.eval())["loss"] < 0.3


def test_a_phantom_is_traced_where_its_volume_says():
    """What the fixture above takes from the cycle is what a rendered phantom's tracings say."""
    patient = render_patient(0, CONFIG, 0)
    volume = beat(sample_anatomy(0, CONFIG, 0), np.arange(CONFIG.frames) / CONFIG.fps).volume
    large, small = (volume[t.frame] for t in patient.tracings)
    assert (large, small) == (pytest.approx(volume.max(), rel=0.01), pytest.approx(volume.min()))
