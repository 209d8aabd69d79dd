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
