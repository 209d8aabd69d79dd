"""The EF task: augmentation, clips, labels; the filter on hearts end to end."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from echosyn.data.frames import FrameSet
from echosyn.metrics.ef_meter import clip_starts, measure_ef, predict_clips, predict_ef
from echosyn.models.ef_regressor import EfRegressor, load_seeds
from echosyn.models.r2plus1d import R2Plus1d, R2Plus1dConfig
from echosyn.runtime.errors import EchosynError
from echosyn.training.ef import EfTask, TrainEfConfig, relabelled, shifted, speckled
from echosyn.training.loop import LoopConfig

CONFIG = TrainEfConfig(
    model=R2Plus1dConfig(widths=(4,), blocks=(1,), stem_width=4, stem_stride=4, in_channels=1),
    loop=LoopConfig(steps=1, batch=2, lr=1e-3, precision="fp32"),
    frames=6,
    pad=2,
)


def videos(n=4, length=10):
    data = np.random.default_rng(0).integers(0, 256, (n * length, 32, 32), np.uint8)
    names = [f"v{i}" for i in range(n)]
    table = pd.DataFrame({"FileName": names, "EF": 40.0 + 5 * np.arange(n), "Split": "TRAIN"})
    return FrameSet(data, table, np.arange(n) * length, np.full(n, length), 16.0)


class FirstPixel(nn.Module):
    """Predicts the grey level of the first pixel: a regressor whose answers are known."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.frames = 6

    def forward(self, clips):
        return clips[:, 0, 0, 0].float()


def test_shift_moves_whole_pixels_and_brings_zeros_in():
    clip = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4) + 1
    moved = shifted(clip, np.array([1, -2]))
    assert (moved[:, 1:, :2] == clip[:, :3, 2:]).all()
    assert moved[:, 0].sum() == moved[:, :, 2:].sum() == 0
    assert (shifted(clip, np.array([0, 0])) == clip).all()


def test_speckle_is_multiplicative_and_of_the_strength_asked_for():
    clip = np.full((4, 64, 64), 100, np.uint8)
    clip[:, :32] = 0
    noisy = speckled(clip, 0.2, np.random.default_rng(0)).astype(float)
    assert (noisy[:, :32] == 0).all()
    assert noisy[:, 32:].mean() == pytest.approx(99.5, abs=1)
    assert noisy[:, 32:].std() == pytest.approx(20, abs=1)
    assert (speckled(clip, 0.0, np.random.default_rng(0)) == clip).all()


def test_clips_are_spread_without_repeats():
    assert clip_starts(28, 16, 4).tolist() == [0, 4, 8, 12]
    assert clip_starts(16, 16, 4).tolist() == [0]
    assert clip_starts(5, 16, 4).tolist() == [0]


def test_every_clip_of_a_video_is_asked_and_one_of_them_is_drawn_by_name():
    frames = videos()
    of_clips = predict_clips(FirstPixel(), [(frames, v) for v in range(4)], 6, 0, show=False)
    assert [len(c) for c in of_clips] == [5] * 4
    expected = [[frames.video(v)[s, 0, 0] for s in range(5)] for v in range(4)]
    assert np.array_equal(np.stack(of_clips), np.array(expected, np.float32))
    predicted = predict_ef(FirstPixel(), frames, 3, "fp32", seed=1)
    means = [np.mean([frames.video(v)[s, 0, 0] for s in (0, 2, 4)]) for v in range(4)]
    assert predicted[:, 0] == pytest.approx(means)
    ones = [[frames.video(v)[s, 0, 0] for s in (0, 2, 4)] for v in range(4)]
    assert all(one in some for one, some in zip(predicted[:, 1], ones, strict=True))
    # The draw belongs to the video, not to its place in a shard.
    alone = [predict_ef(FirstPixel(), frames.take([v]), 3, "fp32", seed=1)[0] for v in range(4)]
    assert np.array_equal(np.stack(alone), predicted)
    others = [predict_ef(FirstPixel(), frames, 3, "fp32", seed=s)[:, 1] for s in range(2, 8)]
    assert any(not np.array_equal(other, predicted[:, 1]) for other in others)


@pytest.fixture
def two_seeds(tmp_path):
    """A folder of two regressors that answer 30 and 40 + the same slope."""
    for k in range(2):
        torch.manual_seed(0)
        model = EfTask(CONFIG, [videos()], []).build().eval()
        with torch.no_grad():
            model.net.fc.bias.fill_(30 + 10 * k)
        model.save(tmp_path / "arm" / f"seed{k}")
    return tmp_path / "arm"


def test_an_arms_measure_is_the_mean_of_its_seeds_and_labels_with_it(two_seeds):
    frames = videos()
    each = [predict_ef(m, frames, 2, "fp32")[:, 0] for m in load_seeds(two_seeds)]
    assert each[1] == pytest.approx(each[0] + 10, abs=1e-4)
    assert measure_ef(two_seeds, frames, 2, "fp32") == pytest.approx(each[0] + 5, abs=1e-4)
    cfg = replace(CONFIG, test_clips=2)
    labelled = relabelled(frames, two_seeds, cfg)
    assert labelled.ef == pytest.approx(np.clip(each[0] + 5, 0, 100), abs=1e-3)
    assert frames.ef.tolist() == [40, 45, 50, 55]
    with pytest.raises(EchosynError, match="no regressor seed0"):
        load_seeds(two_seeds.parent)


def test_a_batch_depends_on_its_rng_alone_and_keeps_labels():
    task = EfTask(CONFIG, [videos()], [])
    a, b, c = (task.batch(np.array([1, 3]), np.random.default_rng(k)) for k in (0, 0, 1))
    assert torch.equal(a["clips"], b["clips"])
    assert not torch.equal(a["clips"], c["clips"])
    assert a["clips"].shape == (2, 6, 32, 32)
    assert a["ef"].tolist() == [45, 55]


def test_half_precision_does_not_round_the_ef():
    torch.manual_seed(0)
    task = EfTask(CONFIG, [videos()], [])
    model = task.build().eval()
    clips = task.batch(np.arange(4), np.random.default_rng(0))["clips"]
    with torch.no_grad():
        full = model(clips)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(clips)
    assert half.dtype == torch.float32
    spread = (full - full.mean()).abs().max()
    assert 0 < (half - full).abs().max() < 0.1 * spread


def test_an_untrained_regressor_answers_the_mean_ef_and_survives_its_folder(tmp_path):
    torch.manual_seed(0)
    task = EfTask(CONFIG, [videos()], [])
    model = task.build().eval()
    clips = task.batch(np.arange(4), np.random.default_rng(0))["clips"]
    with torch.no_grad():
        out = model(clips)
    assert (out - 47.5).abs().max() < 6
    model.save(tmp_path / "m")
    loaded = EfRegressor.load(tmp_path / "m")
    assert (loaded.frames, loaded.fps) == (6, 16.0)
    with torch.no_grad():
        assert torch.equal(loaded(clips), out)


def kinetics(path, outputs):
    """Weights under torchvision's names, as a file of its kind holds them."""
    torch.manual_seed(3)
    net = R2Plus1d(replace(CONFIG.model, outputs=outputs))
    torch.save(net.state_dict(), path)
    return net.state_dict()


def test_training_starts_from_a_file_of_weights_by_key(tmp_path):
    path = tmp_path / "r2plus1d.pth"
    weights = kinetics(path, outputs=400)
    model = EfTask(replace(CONFIG, init=str(path)), [videos()], []).build()
    state = model.net.state_dict()
    assert all(torch.equal(state[k], v) for k, v in weights.items() if not k.startswith("fc."))
    assert state["fc.weight"].shape == (1, 4)
    assert model.net.fc.bias.item() == 47.5
    weights = kinetics(path, outputs=1)  # such as EchoNet-Dynamic's: its output layer fits
    state = EfTask(replace(CONFIG, init=str(path)), [videos()], []).build().net.state_dict()
    assert all(torch.equal(state[k], v) for k, v in weights.items())
    with pytest.raises(EchosynError, match=r"nowhere\.pth does not exist"):
        EfTask(replace(CONFIG, init="nowhere.pth"), [videos()], []).build()
    other = replace(CONFIG.model, stem_width=5)
    with pytest.raises(EchosynError, match=r"weight 'stem.0.weight' has shape \(4, 1, 1, 7, 7\)"):
        EfTask(replace(CONFIG, init=str(path), model=other), [videos()], []).build()


def test_training_goes_on_from_another_regressor(two_seeds):
    model = EfTask(CONFIG, [videos()], [], start=two_seeds / "seed1").build()
    first = EfRegressor.load(two_seeds / "seed1")
    assert model.training
    assert all(torch.equal(v, first.state_dict()[k]) for k, v in model.state_dict().items())
    assert (model.mean, model.std) == (first.mean, first.std)
    with pytest.raises(EchosynError, match="another model, clip length or frame rate"):
        EfTask(replace(CONFIG, frames=8), [videos()], [], start=two_seeds / "seed1").build()
