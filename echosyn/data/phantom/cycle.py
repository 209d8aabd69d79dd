"""The cardiac cycle: LV volume and valve opening over time."""

from dataclasses import dataclass

import numpy as np

from echosyn.data.phantom.anatomy import Anatomy


@dataclass(frozen=True)
class Beat:
    """State of the heart at T instants, all float64 (T,)."""

    volume: np.ndarray  # of the LV, ml
    contraction: np.ndarray  # 0 at ED, 1 at ES
    mitral: np.ndarray  # opening of the mitral (and tricuspid) valve, 0 shut, 1 wide open
    breath: np.ndarray  # respiratory shift along the vertical, reference pixels


def beat(anatomy: Anatomy, times: np.ndarray) -> Beat:
    """The state at `times` (seconds, (T,)).

    Isovolumic contraction, ejection of 418 - 1.6 bpm ms (Weissler et al., Circulation 1968),
    isovolumic relaxation, rapid filling, diastasis, atrial kick: the volume is a sum of smooth
    ramps, so it is flat at ED and ES and exact at both.
    """
    cycle = 60 / anatomy.bpm
    t = (anatomy.phase * cycle + np.asarray(times, np.float64)) % cycle
    contraction = 0.045
    end_systole = contraction + 0.418 - 0.0016 * anatomy.bpm
    opening = end_systole + 0.065
    diastole = cycle - opening
    filled = opening + 0.42 * diastole
    kick = opening + 0.70 * diastole
    late = anatomy.atrial_share
    slow = 0.06
    rest = _ramp(t, contraction, end_systole) - (
        (1 - late - slow) * _ramp(t, opening, filled)
        + slow * _ramp(t, filled, kick)
        + late * _ramp(t, kick, cycle - 0.01)
    )
    esv = anatomy.edv * (1 - anatomy.ef / 100)
    early = _ramp(t, opening, opening + 0.05) - 0.6 * _ramp(t, filled - 0.08, filled)
    atrial = 0.45 * _ramp(t, kick, kick + 0.05) - 0.85 * _ramp(t, cycle - 0.06, cycle)
    angle = 2 * np.pi * anatomy.breath_hz * np.asarray(times) + anatomy.breath_phase
    return Beat(
        volume=anatomy.edv - (anatomy.edv - esv) * rest,
        contraction=rest,
        mitral=early + atrial,
        breath=anatomy.breath * np.sin(angle),
    )


def _ramp(t: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 before `start`, 1 after `end`, a smooth step between."""
    x = np.clip((t - start) / (end - start), 0, 1)
    return x * x * (3 - 2 * x)
