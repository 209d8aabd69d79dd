"""Shared by all tests: one thread, so that bytes repeat whatever else the machine does."""

import os
import sqlite3
from contextlib import closing, contextmanager

os.environ.setdefault("ECHOSYN_THREADS", "1")

from echosyn.runtime import prepare

prepare()

import pytest
import torch

from echosyn.tracking import store


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _stores(tmp_path_factory):
    """MLflow takes a second to make the tables of a fresh SQLite store: in this process they are
    made once, and copied into every further one. Other processes make theirs."""
    tables = tmp_path_factory.mktemp("mlflow") / "tables.db"

    def copy(source, target):
        with closing(sqlite3.connect(source)) as a, closing(sqlite3.connect(target)) as b:
            a.backup(b)

    @contextmanager
    def lock(uri):
        from mlflow.store.db import utils

        def initialize(engine):
            if tables.exists():
                copy(tables, engine.url.database)
            else:
                make(engine)
                copy(engine.url.database, tables)

        make = utils._initialize_tables
        with own(uri), pytest.MonkeyPatch.context() as patch:
            patch.setattr(utils, "_initialize_tables", initialize)
            yield

    own = store._creation_lock
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_creation_lock", lock)
        yield


@pytest.fixture(scope="session", autouse=True)
def _smoke_graph(request, tmp_path_factory):
    """`dvc repro` in the background from the first test on, if any test looks at its outcome: it
    keeps one core busy for minutes, and most other tests need but one."""
    wanted = {name for item in request.session.items for name in item.fixturenames}
    if "graph" not in wanted:
        yield None
        return
    from smoke_graph import SmokeGraph

    running = SmokeGraph(tmp_path_factory.mktemp("smoke"), guests="guests" in wanted)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def graph(_smoke_graph):
    """The run of the whole graph, which may still be busy."""
    return _smoke_graph


@pytest.fixture(scope="session")
def project(graph):
    """A project after `dvc repro` on the smoke preset; tests leave it as they found it."""
    return graph.finished()


@pytest.fixture(scope="session")
def guests(graph):
    """A copy of that project after `dvc repro` of guests added to it, and what that printed."""
    return graph.guests()
