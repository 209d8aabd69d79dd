"""Records on their way to a tracking server that dies, lies or is not there yet."""

import http.server
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_cluster import free_port
from mlflow.tracking import MlflowClient
from proxy import Proxy

from echosyn import tracking
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import read_json
from echosyn.tracking import StageRun, stage_run, sync, trial_run
from echosyn.tracking.outbox import Outbox, decoded, outboxes
from echosyn.tracking.store import NoAnswerError, Store

STEPS = 60


class Server:
    """A real `mlflow server` with a SQLite store, that can be killed and started again."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.uri, self.process = f"http://127.0.0.1:{self.port}", None

    def start(self):
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        env.pop("MLFLOW_TRACKING_URI", None)
        self.process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1",
                "--port", str(self.port), "--workers", "1",
                "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
                "--artifacts-destination", str(self.folder / "artifacts"),
            ],
            cwd=self.folder, env=env, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=30).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("mlflow server did not start")

    def kill(self):
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stages(self, name=None):
        """Runs of stages: all, or those of this name."""
        client = MlflowClient(self.uri)
        found = client.get_experiment_by_name("stages")
        runs = client.search_runs([found.experiment_id]) if found else []
        return [r for r in runs if name in (None, r.info.run_name)]

    def history(self, run, key="loss"):
        return [(m.step, m.value) for m in MlflowClient(self.uri).get_metric_history(run, key)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.kill()


@pytest.fixture
def late(server):
    """The server at a port where nothing listens before `start`: as if it had not been there."""

    class Late:
        port = free_port()
        uri = f"http://127.0.0.1:{port}"

        def start(self):
            Proxy(server.port, self.port)

    return Late()


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("scale: smoke\n")
    return tmp_path


def train(run, first=0, last=STEPS, pause=0.0):
    run.resumed(first)
    for step in range(first, last):
        run.log(step, {"loss": float(step)})
        if step % 10 == 9:
            with run.committing(step + 1):
                time.sleep(pause)


def all_sent():
    """Wait until nothing is left to send, however slow the server; how much was sent."""
    sent, deadline = 0, time.monotonic() + 300
    while True:
        now, left = sync()
        sent += now
        if not left:
            return sent
        assert time.monotonic() < deadline, f"{left} left"
        time.sleep(0.06)


ALL = [(step, float(step)) for step in range(STEPS)]


@pytest.mark.slow
def test_a_server_that_is_not_there_stalls_nothing_and_gets_everything_later(
    server, late, project, monkeypatch, capfd
):
    address = late.uri.replace("//", "//user:secret@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    start = time.time()
    with stage_run("encode", "away", {"lr": 1}) as run:
        train(run)
        run.final({"psnr": 25.0}, "metrics/encode/away.json")
        Path("note.txt").write_text("kept")
        run.artifact("note.txt")
        Path("note.txt").unlink()
    end = time.time()
    said = capfd.readouterr().err
    assert said.count("does not answer; work goes on") == 1
    assert "echosyn sync" in said
    assert "secret" not in said
    sent, left = sync()
    assert sent == 0
    assert left >= 8
    late.start()
    assert all_sent() <= left  # the sender in the background may have been first with some
    (found,) = server.stages("encode/away")
    assert found.info.status == "FINISHED"
    assert server.history(found.info.run_id) == ALL
    assert found.data.metrics["psnr"] == 25.0
    times = (found.info.start_time / 1000, found.info.end_time / 1000)
    assert start - 0.001 <= times[0] <= times[1] <= end, "when it was, not when it was sent"
    assert len(list(server.folder.rglob("note.txt"))) == 1
    assert not outboxes(project / ".echosyn/outbox")


@pytest.mark.slow
def test_a_server_killed_in_the_middle_has_every_step_once(server, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    with stage_run("encode", "middle", {}) as run:
        train(run, last=20, pause=0.3)
        server.kill()
        train(run, 20, 40)
        server.start()
        train(run, 40, 60, pause=0.3)
    all_sent()
    (found,) = server.stages("encode/middle")
    assert server.history(found.info.run_id) == ALL
    assert found.info.status == "FINISHED"


class Deaf(threading.Thread):
    """Forwards every request to `server`, and hangs up on every third or so before it answers."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.lost = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def forward(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                request = urllib.request.Request(
                    server.uri + self.path, body or None, headers, method=self.command
                )
                try:
                    with urllib.request.urlopen(request, timeout=300) as answer:
                        code, content = answer.status, answer.read()
                except urllib.error.HTTPError as e:
                    code, content = e.code, e.read()
                if outer.rng.random() < 0.35:
                    outer.lost += 1
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = forward

            def log_message(self, *_):
                pass

        self.rng = random.Random(0)
        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.httpd.server_port}"

    def run(self):
        self.httpd.serve_forever()


@pytest.mark.slow
def test_lost_acknowledgements_double_nothing(server, project, monkeypatch):
    deaf = Deaf(server)
    deaf.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", deaf.uri)
    monkeypatch.setattr("echosyn.tracking.sender.PAUSE", 0.05)
    monkeypatch.setattr("echosyn.tracking.sender.LONGEST_PAUSE", 0.05)
    with stage_run("encode", "deaf", {}) as run:
        train(run)
        run.final({"psnr": 1.5}, "m.json")
    all_sent()
    assert deaf.lost >= 4
    (found,) = server.stages("encode/deaf")
    assert server.history(found.info.run_id) == ALL
    assert server.history(found.info.run_id, "psnr") == [(0, 1.5)]
    assert found.info.status == "FINISHED"


@pytest.mark.slow
def test_a_killed_stage_continues_its_run_though_none_of_it_was_sent(
    server, late, project, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", late.uri)
    killed = stage_run("train_vae", "all", {"lr": 1}, resume_dir=Path("work"))
    train(killed.__enter__(), 0, 37)
    killed.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    late.start()
    with stage_run("train_vae", "all", {"lr": 1}, resume_dir=Path("work")) as run:
        train(run, 30)
    all_sent()
    (found,) = server.stages("train_vae/all")
    assert found.info.status == "FINISHED"
    assert server.history(found.info.run_id) == ALL


@pytest.mark.slow
def test_trials_are_nested_and_the_same_key_is_the_same_run(server, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    with stage_run("tune", "lvdm", {}) as parent:
        there = pickle.loads(pickle.dumps(parent))
        for first, last, status in ((0, 27, "KILLED"), (20, 60, "FINISHED")):
            trial = trial_run(there, "trial 1", {"loop": {"lr": 0.1}}, "t1")
            train(trial, first, last)
            trial.end(status)
    all_sent()
    runs = {r.info.run_name: r for r in server.stages()}
    child, above = runs["trial 1"], runs["tune/lvdm"]
    assert child.data.tags["mlflow.parentRunId"] == above.info.run_id
    assert child.data.params == {"loop.lr": "0.1"}
    assert server.history(child.info.run_id) == ALL
    assert child.info.status == "FINISHED"


@pytest.mark.slow
def test_a_worker_only_writes_files(server, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    code = (
        "import pickle, sys\n"
        "run = pickle.load(open('run.pkl', 'rb'))\n"
        "run.resumed(0)\n"
        "run.log(3, {'loss': 3.0})\n"
        "with run.committing(4): pass\n"
        "assert not [m for m in sys.modules if m.startswith(('mlflow', 'requests', 'urllib3'))]"
    )
    with stage_run("encode", "worker", {}) as run:
        Path("run.pkl").write_bytes(pickle.dumps(run))
        env = {**os.environ, "MLFLOW_TRACKING_URI": "http://nowhere.invalid"}
        subprocess.run([sys.executable, "-c", code], check=True, env=env)
    all_sent()
    (found,) = server.stages("encode/worker")
    assert server.history(found.info.run_id) == [(3, 3.0)]


@pytest.mark.slow
def test_two_processes_that_send_the_same_outbox_send_it_once(server, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr("echosyn.tracking.sender.PAUSE", 3600)  # not this process as a third
    with stage_run("encode", "twice", {}) as run:
        train(run)
    (waiting,) = outboxes(project / ".echosyn/outbox")
    waiting.learn(uri=server.uri)
    code = "from echosyn.tracking import sync; sync()"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [p.wait() for p in both] == [0, 0]
    (found,) = server.stages("encode/twice")
    assert server.history(found.info.run_id) == ALL


@pytest.mark.slow
def test_a_refused_login_is_said_before_the_work_starts(project, monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    httpd = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{httpd.server_port}")
    with (
        pytest.raises(EchosynError, match="MLFLOW_TRACKING_USERNAME"),
        stage_run("encode", "phantom", {}),
    ):
        pytest.fail("the work must not start")
    httpd.shutdown()


def test_an_unknown_kind_of_address_is_said(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://somewhere")
    with pytest.raises(EchosynError, match="ftp"), stage_run("encode", "phantom", {}):
        pytest.fail("the work must not start")


@pytest.mark.slow
def test_a_refused_record_is_put_aside_and_the_rest_arrives(project, capfd):
    with stage_run("encode", "phantom", {}) as run:
        run.log(0, {"no good name: ü!": 1.0})
        run.flush()
        run.log(1, {"loss": 2.0})
    assert "refused and kept as" in capfd.readouterr().err
    client = MlflowClient(tracking.tracking_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("stages").experiment_id])
    assert found.data.metrics == {"loss": 2.0}
    assert found.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError("no"), NoAnswerError),
        (TimeoutError("slow"), NoAnswerError),
        (PermissionError("disk"), EchosynError),
    ],
)
def test_failures_are_sorted_by_what_can_be_done(error, kind):
    with pytest.raises(kind), Store("http://u:p@h").failures():
        raise error


# What a training does to its log: steps, and a kill at any of the places where it can hit.
EVENTS = st.lists(
    st.tuples(
        st.integers(1, 6),  # steps until the next checkpoint
        st.sampled_from(["no", "before hold", "held", "saved", "settled"]),  # killed where
    ),
    max_size=12,
)


@pytest.mark.slow
@given(EVENTS)
@settings(max_examples=150, deadline=None)
def test_whenever_it_is_killed_every_step_counts_once(tmp_path_factory, events):
    box = Outbox.create(tmp_path_factory.mktemp("box"), "k", {"start_time": 0})
    run, checkpoint, step = StageRun(box), 0, 0
    run.resumed(0)
    for steps, killed in events:
        for _ in range(steps):
            run.log(step, {"loss": float(step)})
            step += 1
        if killed != "before hold":
            manager = run.committing(step)
            manager.__enter__()
            if killed != "held":
                checkpoint = step
                if killed != "saved":
                    manager.__exit__(None, None, None)
        if killed != "no":
            run, step = StageRun(box), checkpoint
            run.resumed(checkpoint)
    sent = [row for path in box.operations() for row in decoded(read_json(path)["rows"])]
    assert [s for _, _, _, s in sent] == list(range(checkpoint))
