"""R(2+1)D against torchvision's published facts, and models on disk."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from echosyn.models.r2plus1d import SMALL, R2Plus1d, R2Plus1dConfig, normalise_clips
from echosyn.models.store import fill, load_model, read_weights, save_model
from echosyn.runtime.errors import EchosynError

TINY = R2Plus1dConfig(
    widths=(2, 4), blocks=(1, 2), stem_width=3, stem_stride=4, in_channels=1, output_bias=55.6
)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def tiny() -> R2Plus1d:
    torch.manual_seed(0)
    return R2Plus1d(TINY).eval()


def test_full_size_is_torchvisions():
    # torchvision docs, R2Plus1D_18_Weights.KINETICS400_V1: num_params 31505325
    assert parameters(R2Plus1d(R2Plus1dConfig(outputs=400))) == 31_505_325


def test_names_and_shapes_are_torchvisions():
    state = R2Plus1d().state_dict()
    # From torchvision.models.video.r2plus1d_18().state_dict()
    expected = {
        "stem.0.weight": (45, 3, 1, 7, 7),
        "stem.1.running_mean": (45,),
        "stem.3.weight": (64, 45, 3, 1, 1),
        "stem.4.weight": (64,),
        "layer1.0.conv1.0.0.weight": (144, 64, 1, 3, 3),
        "layer1.0.conv1.0.1.weight": (144,),
        "layer1.0.conv1.0.3.weight": (64, 144, 3, 1, 1),
        "layer1.0.conv1.1.weight": (64,),
        "layer2.0.conv1.0.0.weight": (230, 64, 1, 3, 3),
        "layer2.0.conv2.0.0.weight": (230, 128, 1, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1, 1),
        "layer2.0.downsample.1.bias": (128,),
        "layer4.1.conv2.0.3.weight": (512, 1152, 3, 1, 1),
        "layer4.1.conv2.1.num_batches_tracked": (),
        "fc.weight": (1, 512),
    }
    assert {k: tuple(state[k].shape) for k in expected} == expected
    assert "layer1.0.downsample.0.weight" not in state
    assert len([k for k in state if k.endswith("running_var")]) == 2 + 8 * 4 + 3


def test_strides_halve_time_and_space():
    model = R2Plus1d(R2Plus1dConfig(widths=(2, 2, 2, 2), stem_width=2)).eval()
    seen = {}
    for i in range(1, 5):
        model.get_submodule(f"layer{i}").register_forward_hook(
            lambda m, x, y, i=i: seen.__setitem__(i, tuple(y.shape[2:]))
        )
    model(torch.zeros(1, 3, 16, 112, 112))
    assert seen == {1: (16, 56, 56), 2: (8, 28, 28), 3: (4, 14, 14), 4: (2, 7, 7)}


def test_block_arithmetic_is_written_out_here_too(tiny):
    x = torch.randn(2, 2, 4, 6, 6)
    block = tiny.layer2[0]
    c1, c2, d = block.conv1, block.conv2, block.downsample
    y = c1[0][3](torch.relu(c1[0][1](c1[0][0](x))))
    y = torch.relu(c1[1](y))
    y = c2[1](c2[0][3](torch.relu(c2[0][1](c2[0][0](y)))))
    assert torch.allclose(block(x), torch.relu(y + d[1](d[0](x))), atol=1e-6)


def test_output_starts_at_its_bias_and_features_feed_it(tiny):
    x = torch.randn(2, 1, 8, 32, 32)
    assert tiny.features(x).shape == (2, 4)
    assert torch.allclose(tiny(x), tiny.fc(tiny.features(x)))
    assert (tiny(x) - 55.6).abs().max() < 1


def test_small_preset_is_small_and_learns_a_sign():
    torch.manual_seed(0)
    model = R2Plus1d(SMALL)
    assert 50_000 < parameters(model) < 250_000
    x = torch.randn(4, 1, 8, 32, 32)
    y = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    x[2:] += 0.5
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = last = 0.0
    for step in range(15):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (loss.item(), 0.0) if step == 0 else (first, loss.item())
    assert last < first / 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"widths": [8, 16], "blocks": [1]}, "one per level"),
        ({"width": [8]}, "did you mean 'widths'"),
        ({"in_channels": 0}, "in_channels: 0 is below"),
    ],
)
def test_wrong_config_is_refused_by_name(values, message):
    with pytest.raises(EchosynError, match=message):
        R2Plus1d.from_config(values)


def test_normalise_clips_repeats_grey_and_standardises():
    frames = np.full((2, 3, 4, 5), 100, np.uint8)
    x = normalise_clips(frames, (100.0, 90.0, 110.0), (10.0, 5.0, 20.0))
    assert x.shape == (2, 3, 3, 4, 5)
    assert x[0, :, 0, 0, 0].tolist() == [0.0, 2.0, -0.5]


def test_save_and_load_give_the_same_bytes_and_outputs(tmp_path, tiny):
    for name in ("a", "b"):
        save_model(tmp_path / name, tiny, asdict(TINY))
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    again = load_model(tmp_path / "a", R2Plus1d.from_config)
    x = torch.randn(1, 1, 8, 32, 32)
    assert not again.training
    assert torch.equal(again(x), tiny(x))


def test_load_names_what_is_wrong(tmp_path, tiny):
    def refused(match: str) -> None:
        with pytest.raises(EchosynError, match=match):
            load_model(tmp_path / "m", R2Plus1d.from_config)

    refused("no such model folder")
    save_model(tmp_path / "m", tiny, asdict(TINY))
    config, weights = tmp_path / "m" / "config.json", tmp_path / "m" / "model.safetensors"
    good, good_weights = config.read_text(), weights.read_bytes()
    config.write_text("{")
    refused("config.json is not valid JSON")
    config.write_text("[1]")
    refused("expected a mapping, found list")
    config.write_text(json.dumps({**json.loads(good), "blocks": [1, 1]}))
    refused("weight 'layer2.1.*' is unknown")
    config.write_text(json.dumps({**json.loads(good), "blocks": [2, 2]}))
    refused("weight 'layer1.1.*' is missing")
    config.write_text(json.dumps({**json.loads(good), "outputs": 2}))
    refused(r"'fc.weight' has shape \(1, 4\), the config builds \(2, 4\)")
    config.write_text(good)
    weights.write_bytes(good_weights[:-10])
    refused("cannot be read as weights")
    weights.unlink()
    refused("model.safetensors does not exist")
    config.unlink()
    refused("config.json does not exist")


def test_a_data_parallel_checkpoint_loads(tmp_path, tiny):
    # The layout of EchoNet-Dynamic's published r2plus1d weights
    state = {f"module.{k}": v for k, v in tiny.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state, "best_loss": 1.0}, tmp_path / "best.pt")
    other = R2Plus1d(TINY).eval()
    fill(other, read_weights(tmp_path / "best.pt"), "best.pt")
    x = torch.randn(1, 1, 8, 32, 32)
    assert torch.equal(other(x), tiny(x))


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    class Surprise:
        def __reduce__(self) -> tuple:
            return (open, (str(tmp_path / "opened"), "w"))

    torch.save({"a": Surprise()}, tmp_path / "bad.pt")
    with pytest.raises(EchosynError, match="cannot be read as weights"):
        read_weights(tmp_path / "bad.pt")
    assert not (tmp_path / "opened").exists()
