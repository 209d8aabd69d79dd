"""Shared by all tests: one thread, so that bytes repeat whatever else the machine does."""

import os

os.environ.setdefault("ECHOSYN_THREADS", "1")

from echosyn.runtime import prepare

prepare()

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A project after `dvc repro` on the smoke preset; tests leave it as they found it."""
    from repro import new_project, run

    arms = ["few_real_50_plus_synthetic", "synthetic_from_phantom"]
    folder = new_project(
        tmp_path_factory.mktemp("project"),
        ef_arms={"phantom": {"start": "phantom", "arms": arms}},
        classify={"reduced_ef": {"dataset": "phantom", "ef_below": 50}},
        fingerprint={"phantom": {}},
    )
    run(folder, "dvc", "repro")
    return folder
