"""The self-check of the arithmetic: what it finds, what it leaves alone, and what follows."""

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from echosyn.arithmetic import trust
from echosyn.arithmetic.trust import Probe, check_apart, examine, machine, trusted
from echosyn.arithmetic.watch import NAN, Watch, poison, relative_error
from echosyn.models.published_image import UnetConfig
from echosyn.models.published_video import PublishedVideoDenoiser
from echosyn.models.r2plus1d import SMALL, R2Plus1d
from echosyn.runtime.errors import EchosynError
from echosyn.tracking import NullRun
from echosyn.training.loop import LoopConfig, fit

CPU = torch.device("cpu")


@torch.library.custom_op("echosyn_test::scaled", mutates_args=())
def scaled(x: torch.Tensor, spoiled: str) -> torch.Tensor:
    """Twice x; in the precisions named, garbage as large as that."""
    names = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64"}
    return -2 * x if names[x.dtype] in spoiled else 2 * x


@scaled.register_fake
def _(x, spoiled):
    return torch.empty_like(x)


scaled.register_autograd(
    lambda ctx, grad: (scaled(grad, ctx.spoiled), None),
    setup_context=lambda ctx, inputs, output: setattr(ctx, "spoiled", inputs[1]),
)


class Spoiled(nn.Module):
    """One linear layer and `scaled`."""

    def __init__(self, spoiled: str) -> None:
        super().__init__()
        self.layer, self.spoiled = nn.Linear(3, 1), spoiled

    def forward(self, x):
        return scaled(self.layer(x), self.spoiled)


def loss_of(model, x):
    return model(x).float().square().mean()


def die(_):
    os.kill(os.getpid(), signal.SIGSEGV)


def probe_of(spoiled):
    return Probe("a line", loss_of, (Spoiled(spoiled), torch.ones(4, 3)))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/echosyn/arithmetic"


@pytest.fixture
def here(monkeypatch):
    """Checks in this process, which is quicker to start; the probes checked."""
    checked = []

    def check_here(jobs, device):
        for probe, precision in jobs:
            checked.append(probe)
            yield trust.answer(
                trust.check(copy.deepcopy(probe), precision, device), probe.what, precision
            )

    monkeypatch.setattr(trust, "check_apart", check_here)
    return checked


def watched(precision, run):
    with Watch(precision, CPU) as watch:
        run()
    return watch.findings


def test_poisoned_memory_is_not_a_number_in_any_precision():
    bits = torch.full((16,), NAN, dtype=torch.int32)
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        assert bits.view(dtype).isnan().all()
    poison(CPU)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_wrong_operation_is_named_with_its_shapes(precision):
    x = torch.ones(4, 3, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    x.requires_grad_()
    found = watched(precision, lambda: scaled(x, "").float().square().mean().backward())
    assert not found.wrong
    assert found.checked >= 2
    found = watched(precision, lambda: scaled(x, precision).float().square().mean().backward())
    assert {o.name for o in found.wrong} == {"echosyn_test.scaled.default"}
    assert found.wrong[0].error == pytest.approx(2.0)
    assert "[4, 3]" in str(found.wrong[0])


def test_rounding_that_cancellation_amplifies_is_not_wrong():
    q, k, v = (torch.randn(8, 2, n, 16, dtype=torch.bfloat16) for n in (9, 1, 1))
    q.requires_grad_()

    def one_key():  # softmax over one token is 1: the gradient of q is nothing but rounding
        F.scaled_dot_product_attention(q, k, v).float().square().mean().backward()

    found = watched("bf16", one_key)
    assert found.checked >= 2
    assert not found.wrong


def test_relative_error_forgives_what_overflows_or_vanishes_in_both():
    half, right = torch.tensor([1.0, 65504, 0]).half(), torch.tensor([1.0, 65504, 1e-9])
    assert relative_error(half, right) == 0
    assert relative_error(torch.tensor([float("inf")]).half(), torch.tensor([1e6])) == 0
    assert relative_error(torch.tensor([float("nan")]), torch.tensor([1.0])) == float("inf")
    assert relative_error(torch.tensor([1.1]), torch.tensor([1.0])) == pytest.approx(0.1, rel=1e-5)


class Volumes(TorchDispatchMode):
    """Shapes that three-dimensional convolutions below fp32 are called with."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("convolution", "convolution_backward"):
            self.seen += [tuple(a.shape) for a in args[:2] if a.dtype == torch.bfloat16]
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "side"), [(16, 112), (32, 56), (8, 16), (4, 40)])
def test_no_network_of_ours_meets_the_defect_of_conv3d(frames, side):
    """oneDNN's bf16 weight gradient is wrong at depth 2, and at sides of 1 with a stride."""
    net = R2Plus1d(SMALL).train()
    x = torch.randn(4, 1, frames, side, side)
    with Volumes() as volumes, torch.autocast("cpu", torch.bfloat16):
        net(x).float().square().mean().backward()
    assert not [s for s in volumes.seen if s[0] == len(x) and min(s[2:]) <= 4]  # but for weights
    found = trust.check(Probe("clips", loss_of, (net, x)), "bf16", CPU)
    assert not found.wrong
    assert found.checked > 5


def test_the_defect_of_conv3d_is_found_where_it_is():
    """By hand, as it was isolated, and by the check: the same answer on any machine."""
    torch.manual_seed(0)
    conv = nn.Conv3d(115, 64, (3, 1, 1), padding=(1, 0, 0), bias=False).bfloat16()
    x, grad = torch.randn(8, 115, 2, 4, 4).bfloat16(), torch.randn(8, 64, 2, 4, 4).bfloat16()
    right = nn.grad.conv3d_weight(x.float(), conv.weight.shape, grad.float(), padding=(1, 0, 0))
    poison(CPU)
    conv(x).backward(grad)
    defect = not relative_error(conv.weight.grad.float(), right) < 0.05
    with Watch("bf16", CPU) as watch:
        conv(x).backward(grad)
    assert bool(watch.findings.wrong) == defect
    for wrong in watch.findings.wrong:
        assert "convolution_backward" in wrong.name


def test_layer_norms_of_the_video_model_add_up_their_gradients_in_full():
    """torch 2.13 adds them up in bf16 on a CPU: the more rows, the less is right."""
    cfg = UnetConfig(widths=(32, 32), layers=1, attention=(False, True), heads=(1, 1))
    model = PublishedVideoDenoiser.create(cfg, 4)
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert norms
    rows = (torch.randn(8192, 32) + 0.3).bfloat16()
    for norm, right in ((norms[0], True), (nn.LayerNorm(32), False)):

        def run(norm=norm):
            out = norm(rows)
            out.backward(rows.to(out.dtype))

        assert bool(watched("bf16", run).wrong) != right


@pytest.mark.slow
def test_a_process_that_dies_was_wrong_and_the_rest_is_still_checked():
    jobs = [(probe_of(""), "bf16"), (Probe("death", die, (1,)), "bf16"), (probe_of("bf16"), "bf16")]
    first, second, third = check_apart(jobs, CPU)
    assert first.right
    assert "signal 11" in second.died
    assert not second.right
    assert "scaled" in third.reason


def test_a_wrong_precision_is_left_for_fp32_with_one_line_that_says_so(here, capsys):
    assert trusted("bf16", CPU, probe_of(""), "train_x all") == "bf16"
    assert capsys.readouterr().err == ""
    assert trusted("bf16", CPU, probe_of("bf16"), "train_x all") == "fp32"
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("train_x all", "fp32 instead of bf16", "scaled", "[4, 1]", torch.__version__):
        assert part in line


def test_a_machine_that_gets_fp32_wrong_stops_with_operation_shapes_and_versions(here):
    with pytest.raises(EchosynError, match=r"scaled.*float32\[4, 1\].*fp32.*torch") as e:
        trusted("bf16", CPU, probe_of("bf16 fp32"), "train_x all")
    assert "oneDNN" in str(e.value)


def test_a_verdict_is_kept_for_this_machine_alone(cache, here):
    probe = probe_of("")
    first = examine(probe, "bf16", CPU)
    (file,) = cache.iterdir()
    assert examine(probe, "bf16", CPU) == first
    assert len(here) == 1
    other = json.loads(file.read_text())
    other["machine"]["processor"] = "another"
    for damaged in (json.dumps(other), "{", "[]", '{"machine": 1}'):
        file.write_text(damaged)
        assert examine(probe, "bf16", CPU) == first
    assert len(here) == 5
    assert json.loads(file.read_text())["machine"] == machine(CPU)
    larger = dataclasses.replace(probe, args=(probe.args[0], torch.ones(5, 3)))
    assert larger.signature() != probe.signature()


class SpoiledTask:
    """A line to learn by a network that is wrong in bf16."""

    size = 8

    def build(self):
        return Spoiled("bf16")

    def batch(self, indices, rng):
        x = torch.tensor(rng.normal(size=(len(indices), 3)), dtype=torch.float32)
        return {"x": x, "y": x.sum(1, keepdim=True)}

    def loss(self, model, batch):
        return (model(batch["x"]).float() - batch["y"]).square().mean(), {}

    def validate(self, model):
        return {"loss": 0.0}


def test_training_falls_back_to_fp32_and_ends_with_the_weights_of_it(here, tmp_path, capsys):
    made = {}
    for precision in ("bf16", "fp32"):
        cfg = LoopConfig(steps=5, batch=4, lr=1e-2, precision=precision)
        model = fit(SpoiledTask(), cfg, 0, tmp_path / precision, NullRun(), "train_x")
        made[precision] = {k: v.numpy().tobytes() for k, v in model.state_dict().items()}
    assert made["bf16"] == made["fp32"]
    assert "fp32 instead of bf16" in capsys.readouterr().err


def test_the_numbers_of_a_probe_do_not_matter_its_shapes_and_settings_do():
    a = Probe("x", loss_of, ({"clips": torch.zeros(2, 3)}, np.float32(1)))
    b = Probe("x", loss_of, ({"clips": torch.ones(2, 3)}, np.float32(1)))
    c = Probe("x", loss_of, ({"clips": torch.zeros(2, 4)}, np.float32(1)))
    assert a.signature() == b.signature() != c.signature()


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\n"
        "from echosyn.arithmetic.trust import Probe, check_apart\n"
        "print('once')\n"
        "def own(x):\n"
        "    return (x @ x.T).float().sum()\n"
        "jobs = [(Probe('own', own, (torch.ones(2, 2, requires_grad=True),)), 'bf16')] * 2\n"
        "print([v.right for v in check_apart(jobs, torch.device('cpu'))])\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["once", "[True, True]"]
