"""Shared by all tests: one thread, so that bytes repeat whatever else the machine does.

Workers of pytest-xdist take whole files, in the order given here; --shuffle SEED gives another.
"""

import os
import random
import sqlite3
import sys
from contextlib import closing, contextmanager

import hypothesis
import pytest

os.environ.setdefault("ECHOSYN_THREADS", "1")

from echosyn.runtime.process import prepare

prepare()

# The same examples every time, and none refused for what else the machine does.
hypothesis.settings.register_profile(
    "repeats",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeats")

GRAPH, WARM = pytest.StashKey(), pytest.StashKey()
# What takes longest goes first, so that workers end together; what waits for the graph goes last.
FIRST = ("test_cluster", "test_submit", "test_outbox", "test_tune", "test_every_source")
LAST = ("test_app", "test_killed_stage", "test_pipeline", "test_real_input")


def pytest_addoption(parser):
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in another order")
    parser.addoption(
        "--all-sources",
        action="store_true",
        help="the whole graph for each kind of source: minutes",
    )


def pytest_collection_modifyitems(config, items):
    seed = config.getoption("shuffle")
    if seed is None:
        files = [*FIRST, None, *LAST]
        items.sort(key=lambda i: files.index(i.path.stem if i.path.stem in files else None))
    else:
        chance = random.Random(seed)
        places = {path: chance.random() for path in dict.fromkeys(i.path for i in items)}
        items.sort(key=lambda i: (places[i.path], chance.random()))


@pytest.fixture(autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _stores(tmp_path_factory):
    """MLflow takes a second to make the tables of a fresh SQLite store: in this process they are
    made once, and copied into every further one. Other processes make theirs."""
    from echosyn.tracking import store

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


# The smoke graph: `dvc repro` in the background from the first test on, if any test looks at its
# outcome. It keeps one core busy for minutes, most other tests need but one. The process that gives
# out the tests starts it, so that every worker may wait for it and none takes it along.


@pytest.hookimpl(tryfirst=True)  # before xdist tells that this worker has collected
def pytest_collection_finish(session):
    config = session.config
    names = {name for item in session.items for name in item.fixturenames}
    if config.getoption("collectonly") or "graph" not in names:
        return
    (shared(config) / ("guests" if "guests" in names else "no guests")).touch()
    if not hasattr(config, "workerinput"):
        start_graph(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node):
    start_graph(node.config)


def shared(config):
    """A folder that all workers of this run see; workers have theirs inside it."""
    folder = config._tmp_path_factory.getbasetemp()
    return folder.parent if hasattr(config, "workerinput") else folder


def start_graph(config):
    wanted = {name for name in ("guests", "no guests") if (shared(config) / name).exists()}
    if wanted and GRAPH not in config.stash:
        import smoke_graph

        from echosyn.project import prefork

        server = warm_folder(config)
        if server:
            config.stash[WARM] = prefork.start(server, {})
        folder = shared(config) / "smoke"
        config.stash[GRAPH] = smoke_graph.start(folder, "guests" in wanted, server)


def pytest_unconfigure(config):
    if GRAPH in config.stash:
        import smoke_graph

        smoke_graph.stop(config.stash[GRAPH])
    if WARM in config.stash:
        from echosyn.project import prefork

        prefork.stop(config.stash[WARM])


def warm_folder(config):
    """Where stages of the graph get their processes; None where each starts anew."""
    return shared(config) / "warm" if sys.platform == "linux" else None


@pytest.fixture(scope="session")
def warm(request, graph):
    """For `run` and `environment`: a stage that they start need not import for seconds."""
    return warm_folder(request.config)


@pytest.fixture(scope="session")
def graph(request):
    """The run of the whole graph, which may still be busy."""
    from smoke_graph import SmokeGraph

    return SmokeGraph(shared(request.config) / "smoke")


@pytest.fixture(scope="session")
def project(graph):
    """A project after `dvc repro` on the smoke preset; tests change only copies of it."""
    return graph.finished()


@pytest.fixture(scope="session")
def guests(graph):
    """A copy of that project after `dvc repro` of guests added to it, and what that printed."""
    return graph.guests()
