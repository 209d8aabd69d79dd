"""Membership attackers against closed forms, simulation, and generators that do or do not copy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from echosyn.diffusion.objectives import DdpmV, Flow
from echosyn.privacy.attacks.membership import (
    AttackConfig,
    Audience,
    dcr_share,
    denoising_losses,
    loss_auc,
    membership_audit,
    nearest_distance,
)
from echosyn.privacy.detectors.similarity import max_similarity, unit_rows
from echosyn.runtime.errors import EchosynError

CONFIG = AttackConfig(resamples=300)


def audience(people: int, frames: int, seed: int, d: int = 12) -> Audience:
    """Two sides of `people` each, with `frames` unit rows around a direction of their own."""
    r = np.random.default_rng(seed)
    centres = np.repeat(r.normal(size=(2 * people, d)), frames, axis=0)
    rows = unit_rows(centres + 0.2 * r.normal(size=centres.shape), "cosine")
    names = np.repeat(np.arange(2 * people), frames)
    half = people * frames
    return Audience(rows[:half], names[:half], rows[half:], names[half:])


# ---- matched sides


def test_matched_sides_hold_as_many_people_and_hearts():
    r = np.random.default_rng(0)
    members, others = r.random((20, 3)), r.random((9, 3))
    member_people = np.repeat(["a", "b", "c", "d"], [8, 4, 5, 3])
    other_people = np.array(["x", "y", "z"] * 3)
    m = Audience(members, member_people, others, other_people).matched(seed=1)
    for rows, people, source, names in (
        (m.members, m.member_people, members, member_people),
        (m.others, m.other_people, others, other_people),
    ):
        found, counts = np.unique(people, return_counts=True)
        assert len(found) == 3
        assert (counts == 3).all()
        for row, person in zip(rows, people, strict=True):  # rows kept their people
            i = np.flatnonzero((source == row).all(1))
            assert names[i] == person
    again = Audience(members, member_people, others, other_people).matched(seed=1)
    assert np.array_equal(again.members, m.members)


def test_matched_sides_need_people():
    with pytest.raises(EchosynError, match="held-out people"):
        Audience(np.ones((2, 2)), np.arange(2), np.ones((0, 2)), np.arange(0)).matched(0)


# ---- distance to the closest record


def test_dcr_share_by_hand():
    sides = Audience(
        np.eye(4, dtype=np.float32)[:2], np.array(["a", "b"]),
        np.eye(4, dtype=np.float32)[2:], np.array(["c", "d"]),
    )  # fmt: skip
    released = unit_rows(
        np.array([[2.0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0]]), "cosine"
    )
    # a, b, d, and a tie of a and c: (1 + 1 + 0 + 1/2) / 4
    assert dcr_share(sides, released).value == pytest.approx(2.5 / 4)


def test_a_copy_of_one_patient_is_one_piece_of_evidence_not_many():
    sides = audience(10, 1, 0)
    many = np.repeat(sides.members[:1], 500, axis=0)
    few = dcr_share(sides, many)
    assert few.value == 1.0
    assert few.lo == pytest.approx(0.025)  # Clopper-Pearson of 1 of 1
    spread = dcr_share(sides, np.repeat(sides.members, 50, axis=0))
    assert spread.lo == pytest.approx(0.025 ** (1 / 10))  # of 10 of 10


@pytest.mark.parametrize(("people", "released"), [(30, 2000), (60, 60)])
def test_dcr_interval_covers_one_half_for_an_honest_release(people, released):
    covered, binomial = 0, 0
    for seed in range(100):
        fresh = unit_rows(np.random.default_rng([seed, 9]).normal(size=(released, 12)), "cosine")
        e = dcr_share(audience(people, 2, seed), fresh)
        covered += e.lo <= 0.5 <= e.hi
        binomial += abs(e.value - 0.5) <= 1.96 * 0.5 / np.sqrt(released)
    assert covered >= 90
    if released > people:
        assert binomial < 80  # released hearts share neighbours: a plain interval is too narrow


def test_dcr_share_finds_a_release_that_leans():
    sides = audience(40, 2, 0)
    r = np.random.default_rng(1)
    near = sides.members[r.integers(0, 80, 150)] + 0.3 * r.normal(size=(150, 12))
    fresh = r.normal(size=(150, 12))
    e = dcr_share(sides, unit_rows(np.concatenate([near, fresh]), "cosine"))
    assert e.lo > 0.5


def test_dcr_share_refuses_sides_of_different_size():
    x = np.eye(3, dtype=np.float32)
    with pytest.raises(EchosynError, match="3 members' hearts and 2"):
        dcr_share(Audience(x, np.arange(3), x[:2], np.arange(2)), x)


# ---- distances


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(0, 10**6))
def test_nearest_distance_is_brute_force_for_any_block(n, m, block, seed):
    r = np.random.default_rng(seed)
    q, g = (r.normal(size=(k, 4)).astype(np.float32) + 30 for k in (n, m))
    brute = np.linalg.norm(q[:, None].astype(np.float64) - g, axis=2).min(1)
    assert np.allclose(nearest_distance(q, g, block), brute, atol=1e-3)


def test_a_copy_has_no_distance_at_all():
    g = np.random.default_rng(0).normal(size=(50, 300)).astype(np.float32) + 100
    assert (nearest_distance(g[7:9], g) == 0).all()
    with pytest.raises(EchosynError, match="distances from"):
        nearest_distance(g, g[:, :3])


# ---- losses


class Known(nn.Module):
    """Denoises hearts it holds perfectly, and answers zero for the rest."""

    def __init__(self, hearts: torch.Tensor) -> None:
        super().__init__()
        self.hearts = nn.Parameter(hearts, requires_grad=False)

    def forward(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        u = (t / 1000).view(-1, 1, 1, 1)
        out = torch.zeros_like(z)
        for x in self.hearts:
            noise = (z - (1 - u) * x) / u
            # what is left after taking the right heart away is standard normal
            known = (noise.square().mean((1, 2, 3)) - 1).abs() < 0.4
            out[known] = (noise - x)[known]
        return out


def test_losses_of_a_model_that_answers_zero():
    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.zeros(1))

        def forward(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(z)

    hearts = torch.stack([torch.zeros(4, 14, 14), torch.full((4, 14, 14), 2.0)])
    cfg = AttackConfig(levels=(0.3, 0.7), draws=20)
    flow = denoising_losses(Zero(), Flow(), hearts, cfg, seed=0)
    # E (noise - x)^2 = 1 + x^2, at every level
    assert flow == pytest.approx([1.0, 5.0], abs=0.1)
    v = denoising_losses(Zero(), DdpmV(), hearts[:1], cfg, seed=0)
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha = np.cumprod(1 - betas)[[300, 700]]
    assert v == pytest.approx([alpha.mean()], abs=0.02)  # v = sqrt(alpha) noise for x = 0


def test_losses_do_not_depend_on_the_batch_or_on_others():
    model = nn.Conv2d(4, 4, 3, padding=1)
    net = type("Net", (nn.Module,), {"forward": lambda self, z, t: self.c(z)})()
    net.c = model
    hearts = torch.randn(7, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = denoising_losses(net, Flow(), hearts, CONFIG, 0)
    assert denoising_losses(net, Flow(), hearts, CONFIG, 0, batch=2) == pytest.approx(whole)
    assert denoising_losses(net, Flow(), hearts[3:4], CONFIG, 0) == pytest.approx(whole[3:4])
    assert denoising_losses(net, Flow(), hearts, CONFIG, 1) != pytest.approx(whole)


def test_loss_attack_knows_hearts_that_the_model_knows():
    g = torch.Generator().manual_seed(0)
    members, others = 3 * torch.randn(2, 12, 4, 8, 8, generator=g)
    hearts = Audience(members, np.arange(12), others, np.arange(12))
    cfg = AttackConfig(levels=(0.3,), draws=1, resamples=200)

    def losses(x: torch.Tensor) -> np.ndarray:
        return denoising_losses(Known(members), Flow(), x, cfg, 0)

    assert loss_auc(losses, hearts, cfg, 0).value == 1.0
    swapped = Audience(others, np.arange(12), members, np.arange(12))
    assert loss_auc(losses, swapped, cfg, 0).value == 0.0  # the direction is fixed


def test_loss_attack_wants_one_loss_per_heart():
    x = torch.zeros(3, 4, 2, 2)
    sides = Audience(x, np.arange(3), x, np.arange(3))
    with pytest.raises(EchosynError, match=r"\(1,\) losses for 6 hearts"):
        loss_auc(lambda _: np.zeros(1), sides, CONFIG, 0)


# ---- all of them


def test_audit_of_copies_and_of_strangers():
    sides = audience(40, 2, 0)
    fresh = unit_rows(np.random.default_rng(5).normal(size=(300, 12)), "cosine")
    as_hearts = Audience(
        torch.from_numpy(sides.members), sides.member_people,
        torch.from_numpy(sides.others), sides.other_people,
    )  # fmt: skip
    args = (lambda x: np.asarray(x)[:, 0], CONFIG, 0)  # losses that know nothing
    safe = membership_audit(sides, fresh, as_hearts, torch.from_numpy(fresh), *args)
    assert list(safe.attacks) == ["auc", "dcr_share", "nn_auc", "loss_auc"]
    for name, e in safe.attacks.items():
        assert e.lo < 0.5 < e.hi, name
    copies = sides.members[::2]
    leak = membership_audit(sides, copies, as_hearts, torch.from_numpy(copies), *args)
    for name in ("auc", "dcr_share", "nn_auc"):
        assert leak.attacks[name].lo > 0.5, name
    assert set(leak.numbers()) >= {"privacy/membership_dcr_share", "privacy/membership_nn_auc_lo"}
    without = membership_audit(sides, fresh, as_hearts, torch.from_numpy(fresh), None, CONFIG, 0)
    assert "privacy/membership_loss_auc" not in without.numbers()


def test_the_filter_itself_gives_members_away_by_avoiding_them():
    sides = audience(400, 2, 0)
    fresh = unit_rows(np.random.default_rng(5).normal(size=(2000, 12)), "cosine")
    similarity = max_similarity(fresh, sides.members)[0]
    kept = fresh[similarity < np.quantile(similarity, 0.8)]
    hearts = Audience(*(np.asarray(v) for v in vars(sides).values()))
    attacks = membership_audit(sides, kept, hearts, torch.from_numpy(kept), None, CONFIG, 0).attacks
    for name in ("auc", "dcr_share", "nn_auc"):
        assert attacks[name].hi < 0.5, name


def test_intervals_are_wide_enough_for_all_attacks_together():
    assert AttackConfig(confidence=0.93).level == pytest.approx(0.99)
    sides = audience(40, 1, 3)
    fresh = unit_rows(np.random.default_rng(6).normal(size=(100, 12)), "cosine")
    hearts = Audience(*(np.asarray(v) for v in vars(sides).values()))
    widths = []
    for confidence in (0.6, 0.99):
        cfg = AttackConfig(confidence=confidence, resamples=500)
        found = membership_audit(sides, fresh, hearts, torch.from_numpy(fresh), None, cfg, 0)
        widths.append([e.hi - e.lo for e in found.attacks.values()])
    assert (np.array(widths[1]) > np.array(widths[0])).all()
