"""Given hearts: inversion against closed forms, counterfactuals, and `echosyn animate` itself."""

import dataclasses
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tiny_video import tiny_video

from echosyn.cli import main
from echosyn.data.latents import LatentSet, pack, write_index, write_shard
from echosyn.data.video import read_video, write_video
from echosyn.diffusion.counterfactual import counterfactuals, noise_of
from echosyn.diffusion.generate import VideoSampler
from echosyn.diffusion.inversion import invert
from echosyn.diffusion.objectives import Flow, make_objective
from echosyn.diffusion.sampling import denoise
from echosyn.diffusion.settings import SampleVideosConfig
from echosyn.diffusion.student import Student
from echosyn.models.condition import ConditionSpec
from echosyn.models.ef_regressor import EfRegressor
from echosyn.models.r2plus1d import SMALL, R2Plus1d
from echosyn.models.reid import build_reid
from echosyn.models.store import save_model
from echosyn.models.vae import Vae, VaeConfig
from echosyn.models.video import VideoDenoiser
from echosyn.privacy.detectors.similarity import unit_rows
from echosyn.report.sheet import contact_sheet
from echosyn.runtime.errors import EchosynError
from echosyn.synthesis.animate import Identities, counterfactual_numbers, unchanged_ssim
from echosyn.synthesis.animate_video import end_diastole

SAMPLING = SampleVideosConfig(
    train=1, val=0, test=0, frames=6, steps=2, guidance=3.0, overlap=2, precision="fp32"
)
REID = {"encoder": "small", "widths": [8, 16], "embedding": 16}


def linear(rate):
    return lambda x, t: rate * x


@pytest.mark.parametrize("rate", [0.5, -0.8])
def test_a_linear_flow_is_inverted_by_its_own_step(rate):
    """Sampling multiplies by 1 - rate / steps a step; guesses without iteration, by 1 + rate."""
    x, steps = torch.randn(2, 3, dtype=torch.float64), 4
    guess = invert(linear(rate), x, steps, 0)
    assert torch.allclose(guess, x * (1 + rate / steps) ** steps)
    exact = invert(linear(rate), x, steps, 40)
    assert torch.allclose(exact, x / (1 - rate / steps) ** steps)


def test_every_step_is_undone_by_its_own_velocity():
    rates = (0.1, 0.4, -0.3, 0.7)
    seen = []

    def act(rate):
        return lambda x, t: seen.append(float(t)) or rate * x + rate

    acts = [act(rate) for rate in rates]
    x = torch.randn(2, 5, dtype=torch.float64)
    noise = invert(acts, x, 4, 40)
    assert sorted(set(seen)) == [250, 500, 750, 1000]
    assert seen[0] == 250
    back = denoise(acts, noise, Flow().scheduler("euler", 4))
    assert torch.allclose(back, x, atol=1e-6)


def test_data_of_known_spread_become_standard_noise():
    """N(0, s^2) data: the flow's velocity is linear, and its ODE maps x to x / s."""
    s = 0.6

    def velocity(x, t):
        t = t / 1000
        return x * (t - (1 - t) * s**2) / ((1 - t) ** 2 * s**2 + t**2)

    x = torch.randn(50, dtype=torch.float64)
    errors = [float((invert(velocity, x, n, 0) - x / s).abs().max()) for n in (10, 40, 160)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.03


@pytest.mark.parametrize("grows", ["steps", "refine"])
def test_the_round_trip_comes_closer_with(grows):
    def curved(x, t):
        return torch.sin(2 * x) + t / 1000

    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    errors = []
    for n in (4, 8, 16):
        steps, refine = (n, 0) if grows == "steps" else (6, n)
        noise = invert(curved, x, steps, refine)
        back = denoise(curved, noise, Flow().scheduler("euler", steps))
        errors.append(float((back - x).abs().max()))
    assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2]


def test_what_cannot_be_inverted_ends_clearly():
    with pytest.raises(EchosynError, match="not finite"):
        invert(lambda x, t: x * float("nan"), torch.ones(1), 2, 0)
    with pytest.raises(ValueError, match="1 predictions for 2 steps"):
        invert([linear(1.0)], torch.ones(1), 2, 0)


@pytest.fixture(scope="module")
def lvdm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "lvdm"
    torch.manual_seed(0)
    model = tiny_video(4, ConditionSpec(), continues=True)
    model.leave.weight.data *= 0.2  # a flow that few iterations invert
    model.save(folder)
    make_objective("flow").save(folder)
    return folder


@pytest.fixture(scope="module")
def video():
    return torch.randn(6, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def sampler(folder, **settings):
    return VideoSampler(folder, dataclasses.replace(SAMPLING, **settings))


def test_a_video_at_its_own_ef_is_that_video(lvdm, video):
    made = sampler(lvdm)

    def error(refine):
        out = counterfactuals(made, video, video[0], 55.0, (55.0, 25.0), 16.0, refine)
        assert out.shape == (2, 6, 4, 6, 6)
        return [float((y - video).abs().mean()) for y in out]

    (same, other), (guess, _) = error(4), error(0)
    assert same < 1e-3 < guess
    assert other > 10 * same


@pytest.mark.parametrize("windows", ["blend", "shift", "discard"])
def test_the_sampler_draws_the_video_from_its_noise(lvdm, video, windows):
    """Its steps and windows are those that inversion went back through."""
    made = sampler(lvdm, windows=windows, guidance=1.0)
    condition = made.model.spec.rows(1, torch.tensor([40.0]))
    noise = noise_of(made, video, video[3], condition, 4)
    again = made.denoised(noise, video[3][None], condition)
    assert torch.allclose(again[0], video, atol=1e-3)
    assert not torch.allclose(noise[0], video, atol=0.1)


def test_what_a_counterfactual_cannot_go_through_is_named(lvdm, video, tmp_path):
    def ask(folder, frames=6, ef=55.0, **settings):
        made = sampler(folder, **settings)
        counterfactuals(made, video[:frames], video[0], ef, (30.0,), 16.0)

    with pytest.raises(EchosynError, match=r"3 frames at the models' frame rate; .* takes 4 or"):
        ask(lvdm, frames=3)
    with pytest.raises(EchosynError, match="windows 'blend' or 'shift', not 'continue'"):
        ask(lvdm, windows="continue")
    with pytest.raises(EchosynError, match="EF 140 is outside 0-100"):
        ask(lvdm, ef=140.0)
    model = VideoDenoiser.load(lvdm)
    for name in ("ddpm_v", "flow"):
        model.save(tmp_path / name)
        make_objective(name).save(tmp_path / name)
    with pytest.raises(EchosynError, match="not one trained with objective 'ddpm_v'"):
        ask(tmp_path / "ddpm_v", sampler="dpmpp")
    Student((2,), 3.0, 1.0).save(tmp_path / "flow")
    with pytest.raises(EchosynError, match="not distilled"):
        ask(tmp_path / "flow")


def test_numbers_of_counterfactuals_are_those_of_the_shifts():
    requested = np.array([[50.0, 40.0, 60.0], [60.0, 40.0, 70.0]])
    reconstructed = np.array([52.0, 57.0])
    moved = np.array([[1.0, -5.0, 5.0], [-1.0, -10.0, 5.0]])  # half of what was asked for
    found = counterfactual_numbers(requested, reconstructed[:, None] + moved, reconstructed, 0)
    found = {k.removeprefix("animate/counterfactual/"): v for k, v in found.items()}
    assert found["shift_slope"] == pytest.approx(0.5)
    assert found["shift_r"] == pytest.approx(1.0)
    assert found["shift_mae"] == pytest.approx((5 + 5 + 10 + 5) / 4)
    assert found["drift_mae"] == pytest.approx(1.0)
    assert found["ef_mae"] == pytest.approx((7 + 3 + 7 + 8) / 4)
    assert found["videos"] == 2


def test_ssim_of_the_unchanged_has_its_ceiling_beside_it():
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (3, 16, 16), np.uint8)
    rebuilt = cv2.GaussianBlur(real.transpose(1, 2, 0), (3, 3), 1).transpose(2, 0, 1)
    found = unchanged_ssim([(real, rebuilt, rebuilt)])
    assert found["animate/counterfactual/ssim"] == pytest.approx(1)
    assert found["animate/counterfactual/ssim_real"] < 0.99
    assert (
        found["animate/counterfactual/ssim_ceiling"] == (found["animate/counterfactual/ssim_real"])
    )


class Pixels:
    """A codec whose latents are the frames, and an encoder that sees their mean colour."""

    def encode(self, frames):
        return torch.from_numpy(frames).float()[:, :, None, None], None

    def __call__(self, latents):
        return unit_rows(latents.mean(dim=(2, 3)).numpy(), "cosine")


def test_identity_is_kept_where_the_nearest_person_is_ones_own(tmp_path):
    """Two videos of one person and one of another: the second is no stranger to the first."""
    colours = {"a1": [1, 0, 0, 0], "a2": [1, 0.1, 0, 0], "b": [0, 0, 1, 0]}
    table = pd.DataFrame({"FileName": list(colours), "Patient": ["a", "a", "b"]})
    table = table.assign(EF=50.0, Split="TEST", FPS=16.0, NumberOfFrames=8, Shard="x.safetensors")
    means = {k: torch.tensor(c).float()[None, :, None, None] for k, c in colours.items()}
    means = {k: m.expand(8, 4, 3, 3) for k, m in means.items()}
    write_shard(tmp_path / "x.safetensors", {k: pack(m, -4 + 0 * m) for k, m in means.items()})
    write_index(tmp_path, table)
    people = Identities(LatentSet(tmp_path), Pixels(), Pixels())
    assert people.verification()["reid/auc"] == 1
    made = {0: np.array([[1, 0.1, 0, 0], [0, 0, 1, 0.2]]), 2: np.array([[0, 0, 2, 0]])}
    found = people.kept(made, "p")
    assert found["p/identity_kept"] == pytest.approx(2 / 3)
    strangers = [0.0, 1 / np.sqrt(1.04), 0.0]
    assert found["p/other_similarity"] == pytest.approx(np.mean(strangers), abs=1e-3)


def beating(frames=24, largest=12):
    """A dark cavity in bright tissue, largest at frame `largest`."""
    made = np.full((frames, 112, 112), 150, np.uint8)
    for t, frame in enumerate(made):
        radius = 26 + 6 * np.cos(2 * np.pi * (t - largest) / frames)
        cv2.circle(frame, (56 * 16, 50 * 16), round(16 * radius), 20, -1, cv2.LINE_AA, 4)
    return made


@pytest.mark.parametrize("largest", [0, 5, 17])
def test_end_diastole_is_where_the_cavity_is_largest(largest):
    assert abs(end_diastole(beating(largest=largest)) - largest) <= 1


def test_the_sheet_shows_each_clip_and_its_motion():
    still = np.repeat(beating()[:1], 24, axis=0)
    png = contact_sheet([("moving", beating()), ("still", still)], moments=4)
    sheet = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert sheet.shape[0] == 2 * 112 + 3
    trace = sheet[:, -224:]
    assert trace[:112].std(axis=1).max() > 30
    assert trace[115:].std(axis=1).max() == 0


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Small untrained models where a project has them."""
    root = tmp_path_factory.mktemp("project")
    (root / "conf/smoke").mkdir(parents=True)
    settings = {"precision": "fp32", "train": 1, "val": 0, "test": 0, "frames": 6, "steps": 2}
    (root / "conf/smoke/sample_videos.yaml").write_text(yaml.safe_dump({**settings, "overlap": 2}))
    (root / "conf/smoke/encode.yaml").write_text(yaml.safe_dump({"fps": 16}))
    params = {"scale": "smoke", "seed": 3, "sample_videos": {"guidance": 3.0, "windows": "shift"}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    torch.manual_seed(0)
    models = root / "models"
    vae = Vae.create(VaeConfig(widths=(8, 8, 8), groups=4))
    vae.standardise_by(torch.zeros(4), torch.full((4,), 0.25))
    vae.save(models / "vae")
    lvdm = tiny_video(4, ConditionSpec(), 14)
    lvdm.leave.weight.data *= 0.3  # a flow that few iterations invert
    lvdm.save(models / "lvdm")
    make_objective("flow").save(models / "lvdm")
    save_model(models / "reid/phantom", build_reid(REID), REID)
    regressor = EfRegressor(R2Plus1d(dataclasses.replace(SMALL, output_bias=55.0)), 30, 50, 1, 3, 8)
    regressor.save(models / "ef/phantom/real/seed0")
    write_video(root / "clip.avi", beating(), 32.0)
    return root


def ask(project, out, *more, video="clip.avi", efs=("30", "70")):
    arguments = ["--video", str(project / video), "--project", str(project), "--out", str(out)]
    return main(["animate", *arguments, "--ef", *efs, *more])


@pytest.mark.slow
def test_a_video_is_animated_and_scored(project, tmp_path, capsys):
    assert ask(project, tmp_path / "a", "--ef", "55", "--ef", "30") == 0
    printed = capsys.readouterr().out
    names = ["reconstructed", "EF30", "EF70", "EF55"]
    assert [line.split()[0] for line in printed.splitlines()[2:6]] == names
    found = {p.name for p in (tmp_path / "a").iterdir()}
    videos = {f"clip_{name}.avi" for name in names}
    assert found == {*videos, "sweep.webp", "sheet.png", "scores.json"}
    for name in videos:
        frames, fps = read_video(tmp_path / "a" / name)
        length = 12 if "reconstructed" in name else 6
        assert (frames.shape, fps) == ((length, 112, 112), 16.0)
    scores = json.loads((tmp_path / "a/scores.json").read_text())
    assert abs(scores["heart_frame"] - 12) <= 1
    rebuilt, *made = scores["made"]
    assert rebuilt["ssim_reconstructed"] == pytest.approx(1)
    assert [row["ef_asked"] for row in made] == [30, 70, 55]
    errors = [abs(row["ef_asked"] - row["ef_measured"]) for row in made]
    assert scores["ef_mae"] == pytest.approx(np.mean(errors))
    assert ask(project, tmp_path / "b", "--ef", "55") == 0
    assert (tmp_path / "a/scores.json").read_bytes() == (tmp_path / "b/scores.json").read_bytes()
    assert ask(project, tmp_path / "c", "--frame", "3", "--guidance", "1", "--steps", "1") == 0
    other = json.loads((tmp_path / "c/scores.json").read_text())
    assert scores["ef_measured"] == other["ef_measured"] is not None
    assert (other["heart_frame"], other["guidance"], other["steps"]) == (3, 1, 1)


def test_a_clip_too_short_to_measure_is_animated_all_the_same(project, tmp_path, capsys):
    write_video(project / "two.avi", beating()[:4], 32.0)
    assert ask(project, tmp_path / "a", video="two.avi", efs=["30"]) == 0
    assert "its EF: too short to measure" in capsys.readouterr().out
    scores = json.loads((tmp_path / "a/scores.json").read_text())
    assert scores["ef_measured"] is None
    assert scores["made"][1]["ef_measured"] is not None


@pytest.mark.slow
def test_the_very_video_is_given_another_ef(project, tmp_path):
    asked = ("--counterfactual", "--from-ef", "61")
    assert ask(project, tmp_path / "a", *asked) == 0
    scores = json.loads((tmp_path / "a/scores.json").read_text())
    same, low, high = scores["made"][1:]
    assert [same["name"], same["ef_asked"], low["ef_asked"]] == ["unchanged", 61, 30]
    assert same["ssim_reconstructed"] > max(0.98, low["ssim_reconstructed"])
    assert low["ssim_reconstructed"] != high["ssim_reconstructed"]
    assert len(read_video(tmp_path / "a/clip_EF30.avi")[0]) == 12


WRONG = [
    (["--ef", "140"], {}, "EF 140 is outside 0-100 percent"),
    (["--from-ef", "50"], {}, "--counterfactual"),
    ([], {"video": "none.avi"}, "none.avi: the video does not exist"),
    ([], {"video": "params.yaml"}, "params.yaml: not a video"),
    ([], {"video": "one.avi"}, "one.avi: a still image"),
    (["--frame", "24"], {}, "clip.avi: no frame 24; there are 24, counted from 0"),
    (["--counterfactual"], {"video": "short.avi"}, "short.avi: 2 frames at 16 per second are too"),
    (
        ["--counterfactual", "--from-ef", "50"],
        {"video": "short.avi"},
        "short.avi: 2 frames at the models' frame rate; a counterfactual takes 4 or more",
    ),
    (["--models", "clinic"], {}, "clinic: no such model; `dvc repro train_reid@clinic`"),
    (["--model", "distilled/x"], {}, "distilled/x: no such model; `dvc repro distill_lvdm@x`"),
    (["--steps", "0"], {}, "steps: 0 is below the least allowed value 1"),
    (["--project", "nowhere"], {}, "nowhere/params.yaml does not exist"),
]


@pytest.mark.parametrize(("options", "other", "message"), WRONG)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    project, tmp_path, capsys, options, other, message
):
    write_video(project / "one.avi", beating()[:1], 32.0)
    write_video(project / "short.avi", beating()[:4], 32.0)
    assert ask(project, tmp_path / "out", *options, **other) == 1
    err = capsys.readouterr().err.strip()
    assert message in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_project_without_models_says_what_to_do(project, tmp_path, capsys):
    (tmp_path / "conf").symlink_to(project / "conf")
    (tmp_path / "params.yaml").symlink_to(project / "params.yaml")
    assert ask(project, tmp_path / "out", "--project", str(tmp_path)) == 1
    assert "no models here; run `dvc repro`" in capsys.readouterr().err


def test_a_folder_with_something_in_it_is_left_alone(project, tmp_path, capsys):
    (tmp_path / "kept.txt").write_text("mine")
    assert ask(project, tmp_path) == 1
    assert "is there and not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_a_frame_that_is_no_number_is_refused(project, tmp_path, capsys):
    with pytest.raises(SystemExit):
        ask(project, tmp_path / "out", "--frame", "es")
    assert "'es' is neither a frame number nor 'ed'" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        "import sys, contextlib\n"
        "from echosyn.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['animate', '--help'])\n"
        "print([m for m in ('torch', 'cv2', 'diffusers', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--counterfactual" in done.stdout
