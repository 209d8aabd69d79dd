"""How a version is written, and what of two versions' numbers is a change."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn.release.build import VERSION
from echosyn.release.diff import diff
from echosyn.release.versions import ARTIFACT, parse_spec
from echosyn.runtime.errors import EchosynError


@settings(max_examples=30)
@given(
    st.from_regex(ARTIFACT, fullmatch=True),
    st.from_regex(re.compile(VERSION.pattern, re.ASCII), fullmatch=True),
    st.sampled_from(["", "v"]),
)
def test_a_version_is_read_as_it_was_written(name, version, v):
    assert parse_spec(f"{name}@{v}{version}") == (name, version)


@pytest.mark.parametrize(
    "spec",
    ["phantom@1", "phantom@", "@0.1.0", "phantom@0.1.0\n", "Phantom@0.1.0", "phantom@0.1.0@0.2.0",
     "../phantom@0.1.0", "phantom@vv0.1.0", "phantom@0.1.0!", "phantom @0.1.0", "-x@0.1.0",
     "phantom@01.0.0", "phantom@\u0661.0.0", "phantom_@0.1.0", "phantom@0.1.0+meta",
     "phantom#approved"],
)  # fmt: skip
def test_a_version_written_otherwise_is_refused(spec):
    with pytest.raises(EchosynError, match="is not NAME@VERSION"):
        parse_spec(spec)


def manifest(**metrics):
    return {"files": {}, "metrics": metrics}


@pytest.mark.parametrize(
    ("lo", "hi", "said"),
    [(2.0, 4.0, "within the intervals"), (2.1, 4.0, "a change"), (-4.0, 0.9, "a change"),
     (1.5, 1.6, "within the intervals")],
)  # fmt: skip
def test_intervals_that_do_not_overlap_are_a_change(lo, hi, said):
    old, new = manifest(x=1.5, x_lo=1.0, x_hi=2.0), manifest(x=3.0, x_lo=lo, x_hi=hi)
    assert diff(old, new) == ["numbers:", f"  x: 1.5 (1 to 2) -> 3 ({lo:g} to {hi:g}), {said}"]


def test_numbers_without_interval_or_counterpart_are_told():
    lines = diff(manifest(x=1, same=2, gone=3), manifest(x=2, same=2, new=4))
    assert lines == ["numbers:", "  gone: 3 -> -", "  x: 1 -> 2, no interval", "  new: - -> 4"]
