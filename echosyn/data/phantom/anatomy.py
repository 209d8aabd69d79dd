"""One patient: the numbers that fix a heart, how it beats and how the machine shows it.

Lengths are in reference pixels, those of a 112 x 112 frame, of 1.35 mm each (a scan depth of
14 cm). Positions are (x, y), x to the right and y down.
"""

from dataclasses import dataclass, replace

import numpy as np

from echosyn.data.phantom.config import PhantomConfig

REFERENCE_SIZE = 112
MM_PER_PIXEL = 1.35
ML_PER_CUBIC_PIXEL = MM_PER_PIXEL**3 / 1000


@dataclass(frozen=True)
class Anatomy:
    """What makes one patient differ from another. EF is drawn independently of all the rest."""

    ef: float  # percent, aimed at; the label is measured on the drawn contours
    edv: float  # ml
    bpm: float
    phase: float  # of the first frame, 0-1 of a cycle, 0 = end of diastole
    atrial_share: float  # of the stroke volume, filled by the atrial kick
    sphericity: float  # LV width / length at ED
    widest: float  # where on the long axis the LV is widest, 0 = apex, 1 = annulus
    annulus: float  # LV width at the annulus / greatest width
    apex_power: float  # below .5 blunt, above .5 pointed
    skew: float  # > 0: the lateral wall bulges more than the septum
    wall: float  # thickness at ED
    apex_x: float
    apex_y: float
    tilt: float  # degrees, of the long axis from the vertical, > 0: base to the right
    rv_width: float
    rv_top: float  # where on the LV axis the RV apex lies, 0-1
    rv_squeeze: float  # share of its width that the RV loses in systole
    la_width: float
    la_depth: float
    ra_width: float
    ra_depth: float
    anterior: float  # leaflet lengths / annulus width
    posterior: float
    papillary: float  # position on the long axis, 0-1
    papillary_db: float
    gain_db: float
    attenuation_db: float  # left over 100 pixels of depth after time-gain compensation
    dynamic_range_db: float
    blood_db: float
    noise_db: float
    haze_db: float  # near-field clutter above the noise
    speckle: float  # relative speckle size
    memory: float  # lag-1 correlation of the speckle that does not follow the tissue
    drift: float  # share of the speckle power that does not follow the tissue
    breath: float  # amplitude of the respiratory shift
    breath_hz: float
    breath_phase: float  # radians


def sample_anatomy(index: int, cfg: PhantomConfig, seed: int) -> Anatomy:
    """Draw patient `index`, a function of (index, seed) and the population in `cfg` only."""
    rng = np.random.default_rng([seed, index, 0])
    u = rng.uniform
    return Anatomy(
        ef=_truncated(rng, cfg.ef_mean, cfg.ef_sd, cfg.ef_lo, cfg.ef_hi),
        edv=float(np.exp(_truncated(rng, np.log(94), 0.28, np.log(48), np.log(165)))),
        bpm=u(cfg.bpm_lo, cfg.bpm_hi),
        phase=u(),
        atrial_share=u(0.15, 0.35),
        sphericity=u(0.54, 0.70),
        widest=u(0.55, 0.75),
        annulus=u(0.74, 0.92),
        apex_power=u(0.42, 0.60),
        skew=u(-0.02, 0.16),
        wall=u(4.6, 7.6),
        apex_x=u(58, 66),
        apex_y=u(16, 23),
        tilt=u(-6, 10),
        rv_width=u(17, 31),
        rv_top=u(0.12, 0.40),
        rv_squeeze=u(0.15, 0.35),
        la_width=u(27, 38),
        la_depth=u(22, 36),
        ra_width=u(24, 36),
        ra_depth=u(20, 32),
        anterior=u(0.56, 0.66),
        posterior=u(0.38, 0.46),
        papillary=u(0.42, 0.62),
        papillary_db=u(-38, -14),
        gain_db=u(-4, 4),
        attenuation_db=u(0, 10),
        dynamic_range_db=u(36, 46),
        blood_db=u(-48, -35),
        noise_db=u(-62, -44),
        haze_db=u(0, 18),
        speckle=u(0.85, 1.3),
        memory=u(0.45, 0.75),
        drift=u(0.2, 0.4),
        breath=u(0.3, 1.2),
        breath_hz=u(0.2, 0.33),
        breath_phase=u(0, 2 * np.pi),
    )


def with_pathology(anatomy: Anatomy, pathology: str) -> Anatomy:
    """The same patient, ill: a right heart under pressure, or a thick wall. EF stays.

    right_heart: wide right chambers that hardly squeeze, a left atrium with less to fill it.
    thick_wall: twice the wall around a smaller cavity.
    """
    if pathology == "right_heart":
        return replace(
            anatomy,
            rv_width=1.7 * anatomy.rv_width,
            rv_top=0.6 * anatomy.rv_top,
            rv_squeeze=0.5 * anatomy.rv_squeeze,
            ra_width=1.4 * anatomy.ra_width,
            la_width=0.85 * anatomy.la_width,
        )
    if pathology == "thick_wall":
        return replace(anatomy, wall=2 * anatomy.wall, edv=0.85 * anatomy.edv)
    return anatomy


def _truncated(rng: np.random.Generator, mean: float, sd: float, lo: float, hi: float) -> float:
    while True:
        value = rng.normal(mean, sd)
        if lo <= value <= hi:
            return float(value)
