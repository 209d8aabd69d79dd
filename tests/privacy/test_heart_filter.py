"""The filter on hearts: copies are refused, strangers pass, more are drawn where too few do."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from echosyn.data.latents import LatentSet, pack, write_index, write_shard
from echosyn.diffusion.heart_file import Hearts
from echosyn.privacy.detectors.embedding import HeartEncoder
from echosyn.privacy.filters.calibration import CalibrationConfig, read_taus
from echosyn.privacy.filters.hearts import AcceptedHearts, PrivacyConfig, filter_hearts
from echosyn.runtime.errors import EchosynError


class MeanEncoder(nn.Module):
    """Embeds a latent as its coarse picture: enough to tell well-separated people apart."""

    similarity = "cosine"

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def embed(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 3).flatten(1)


@pytest.fixture
def people(tmp_path):
    """60 people, a random coarse pattern each, a little noise per frame."""
    rng = torch.Generator().manual_seed(0)
    folder = tmp_path / "z"
    folder.mkdir()
    rows, shard = [], {}
    for i in range(60):
        anatomy = nn.functional.interpolate(torch.randn(1, 4, 3, 3, generator=rng), size=14)
        z = anatomy + 0.1 * torch.randn(6, 4, 14, 14, generator=rng)
        shard[f"v{i}"] = pack(z, z * 0)
        split = "TRAIN" if i < 30 else "VAL" if i < 45 else "TEST"
        rows.append((f"v{i}", 50.0, split, 16.0, 6, "s.safetensors"))
    write_shard(folder / "s.safetensors", shard)
    columns = ["FileName", "EF", "Split", "FPS", "NumberOfFrames", "Shard"]
    write_index(folder, pd.DataFrame(rows, columns=columns))
    return folder


CONFIG = PrivacyConfig(
    calibration=CalibrationConfig(false_rejection=0.1, resamples=100),
    gallery_frames=3,
    heldout_frames=3,
)


def strangers(n, seed):
    coarse = torch.randn(n, 4, 3, 3, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=14)


@pytest.fixture
def copies(people):
    return LatentSet(people, "TRAIN").frames(4, 2) + 0.02


def test_the_filter_refuses_copies_and_lets_strangers_pass(people, copies, tmp_path):
    hearts = torch.cat([copies, copies.flip(-1), strangers(20, 5)])
    encoder = HeartEncoder(MeanEncoder(), identity="e1")
    result = filter_hearts(Hearts(hearts), people, encoder, CONFIG, seed=0)
    assert not result.accepted[:4].any()
    assert result.accepted[4:].mean() > 0.7
    numbers = result.numbers()
    assert numbers["privacy/comparisons"] == 90
    assert numbers["privacy/calibration_people"] == 15
    assert numbers["privacy/false_rejection_heldout_lo"] <= 0.1
    result.write(tmp_path)
    kept = AcceptedHearts(tmp_path)
    assert kept.indices.tolist() == np.flatnonzero(result.accepted).tolist()
    assert torch.equal(kept.take(kept.indices[[3, 0]]), hearts[kept.indices[[3, 0]]])
    assert kept.ef is None
    assert kept.classes is None
    with pytest.raises(EchosynError, match="heart 1 is not among those accepted"):
        kept.take([kept.indices[0], 1])
    with pytest.raises(EchosynError, match="run privacy_filter"):
        AcceptedHearts(tmp_path / "nowhere")
    made = CONFIG.made_with(people, encoder)
    assert read_taus(tmp_path / "calibration.json", made)["hearts"] == result.calibration.tau
    other = HeartEncoder(MeanEncoder(), identity="e2")
    with pytest.raises(EchosynError, match="encoder 'e1', but it is now 'e2'"):
        read_taus(tmp_path / "calibration.json", CONFIG.made_with(people, other))
    with next(people.glob("*.safetensors")).open("ab") as f:
        f.write(b"\0")
    with pytest.raises(EchosynError, match="calibrated with latents"):
        read_taus(tmp_path / "calibration.json", CONFIG.made_with(people, encoder))


def test_mirrored_copies_escape_only_when_asked_to(people, copies):
    plain = PrivacyConfig(CONFIG.calibration, 3, 3, mirror=False)
    hearts = Hearts(torch.cat([copies, copies.flip(-1)]))
    result = filter_hearts(hearts, people, HeartEncoder(MeanEncoder()), plain, seed=0)
    assert result.accepted.tolist() == [False, False, True, True]


def test_more_hearts_are_drawn_until_enough_are_accepted(people, copies):
    asked = []

    def draw(first, count):
        asked.append((first, count))
        return Hearts(strangers(count, first))

    start = Hearts(torch.cat([copies, strangers(3, 5)]))
    encoder = HeartEncoder(MeanEncoder())
    cfg = PrivacyConfig(CONFIG.calibration, 3, 3, spare=0.5, limit=10.0)
    result = filter_hearts(start, people, encoder, cfg, 0, wanted=12, draw=draw)
    assert asked[0][0] == 5
    assert [first for first, _ in asked[1:]] == [first + n for first, n in asked[:-1]]
    assert result.accepted.sum() >= 18
    assert len(result.hearts) == len(result.synthetic) == 5 + sum(n for _, n in asked) <= 50
    assert torch.equal(result.hearts.latents[:5], start.latents)
    kept = filter_hearts(result.hearts, people, encoder, cfg, 0, wanted=12, draw=draw)
    assert np.array_equal(kept.accepted, result.accepted)


def test_labels_of_accepted_hearts_come_through(people, copies, tmp_path):
    """Two copies, refused, then six strangers and those drawn later, each with its own label."""

    def labelled(latents, first):
        at = np.arange(first, first + len(latents))
        return Hearts(latents, 30.0 + 0.1 * at, tuple(f"class {i % 3}" for i in at))

    cfg = PrivacyConfig(CONFIG.calibration, 3, 3, spare=0.0, limit=10.0)
    start = labelled(torch.cat([copies, strangers(6, 5)]), 0)
    result = filter_hearts(
        start, people, HeartEncoder(MeanEncoder()), cfg, 0, wanted=10,
        draw=lambda first, count: labelled(strangers(count, first), first),
    )  # fmt: skip
    result.write(tmp_path)
    kept = AcceptedHearts(tmp_path)
    assert 0 not in kept.indices
    assert kept.indices.max() >= len(start)
    assert kept.ef.tolist() == (30.0 + 0.1 * kept.indices).tolist()
    assert kept.classes == [f"class {i % 3}" for i in kept.indices]


def test_too_few_hearts_stop_with_the_numbers(people, copies):
    encoder, drawn = HeartEncoder(MeanEncoder()), []

    def copier(first, count):
        drawn.append(count)
        return Hearts(copies[:1].repeat(count, 1, 1, 1))

    cfg = PrivacyConfig(CONFIG.calibration, 3, 3, limit=4.0)
    with pytest.raises(EchosynError, match=r"0 of 8 hearts were accepted, but 5 .*copies less"):
        filter_hearts(Hearts(copies), people, encoder, cfg, 0, wanted=5, draw=copier)
    assert sum(drawn) == 6
    with pytest.raises(EchosynError, match=r"hearts were accepted, but 50 .* Allow about"):
        filter_hearts(Hearts(strangers(20, 5)), people, encoder, cfg, 0, wanted=50)


def test_the_filter_says_how_many_people_it_needs(people):
    cfg = PrivacyConfig(CalibrationConfig(false_rejection=0.05), 3, 3)
    with pytest.raises(EchosynError, match=r"15 held-out people .* needs 20"):
        filter_hearts(Hearts(strangers(4, 5)), people, HeartEncoder(MeanEncoder()), cfg, seed=0)
