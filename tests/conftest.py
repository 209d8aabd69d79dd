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

    folder = new_project(tmp_path_factory.mktemp("project"))
    run(folder, "dvc", "repro")
    return folder
