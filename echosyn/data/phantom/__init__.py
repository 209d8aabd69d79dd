"""A procedural echocardiogram, apical or short-axis: the dataset that ships with the project.

Every patient is drawn from a seed: a left ventricle whose volume follows the cardiac cycle, the
chambers and valves around it, and speckle that moves with the tissue. EF is known exactly, from
the contour that was drawn. Patients may have a pathology, which the column Class tells, and a
dataset may be given defects for tests of what must notice them.
"""

from echosyn.data.phantom.anatomy import Anatomy, sample_anatomy
from echosyn.data.phantom.config import Defects, PhantomConfig
from echosyn.data.phantom.dataset import write_dataset
from echosyn.data.phantom.render import PhantomVideo, Tracing, measured_ef, render_patient

__all__ = [
    "Anatomy",
    "Defects",
    "PhantomConfig",
    "PhantomVideo",
    "Tracing",
    "measured_ef",
    "render_patient",
    "sample_anatomy",
    "write_dataset",
]
