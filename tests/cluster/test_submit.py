"""`echosyn submit` against a real cluster with a jobs server, as a user types it."""

import http.server
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import distribution
from pathlib import Path

import psutil
import pytest
import yaml
from local_cluster import LocalCluster, free_port
from proxy import Proxy
from repro import environment, new_project

from echosyn.cli import main
from echosyn.cluster.checks import COMPARED, differences, here
from echosyn.cluster.models import MODELS
from echosyn.cluster.submit import Job, exit_status, jobs_address
from echosyn.runtime.errors import EchosynError

# A stage that works until it is asked to stop, and saves then; prints a line now and then.
SLOW = """
import os, pathlib, time
from echosyn.runtime.process import deferred_stop, run_stage

def main():
    with deferred_stop() as asked:
        pathlib.Path("stage.pid").write_text(str(os.getpid()))
        for i in range(3000):
            print(f"line {i} of the stage", flush=True)
            time.sleep(0.2)
            if asked():
                time.sleep(1)
                pathlib.Path("saved").write_text("")
                raise SystemExit("stopped")
            if pathlib.Path("go on").exists():
                break
    pathlib.Path("slow.txt").write_text("done")

run_stage(main)
"""
STAGES = {
    "slow": {"cmd": "python slow.py", "deps": ["slow.py"], "outs": ["slow.txt"]},
    "failing": {"cmd": "python -m pipelines.ingest nowhere"},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = new_project(tmp_path_factory.mktemp("shared") / "project of mine")
    (folder / "slow.py").write_text(SLOW)
    graph = yaml.safe_load((folder / "dvc.yaml").read_text())
    graph["stages"] |= STAGES
    (folder / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def running(project):
    with LocalCluster(nodes=2, jobs=True) as cluster:
        yield cluster


@pytest.fixture
def clean(project):
    for name in ("go on", "saved", "slow.txt", "stage.pid", "dvc.lock"):
        (project / name).unlink(missing_ok=True)
    # Else DVC takes from its cache what a stage that came to its end has left.
    shutil.rmtree(project / ".dvc/cache/runs", ignore_errors=True)
    return project


def command(project, *arguments, **variables):
    """The arguments of Popen that run `echosyn arguments` in the project."""
    env = {**environment(project), "RAY_AUTH_MODE": "disabled", **variables}
    return {
        "args": [sys.executable, "-m", "echosyn", *arguments],
        "cwd": project, "env": env, "text": True,
        "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
        # Ignored in what a shell started in the background, and inherited.
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    }  # fmt: skip


def echosyn(project, *arguments, **variables):
    popen = command(project, *arguments, **variables)
    with subprocess.Popen(**popen) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture
def typed(project, monkeypatch, capsys):
    """`echosyn` with these arguments, in this process: status, what it printed, what it said."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*arguments):
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        return status, *capsys.readouterr()

    return run


def until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def started(project):
    until(lambda: (project / "stage.pid").exists() and (project / "stage.pid").read_text())
    return psutil.Process(int((project / "stage.pid").read_text()))


def family(stage):
    """The stage, `dvc repro`, and the job that runs it."""
    parents = [p for p in stage.parents() if {"dvc", "echosyn.cluster.job"} & set(p.cmdline())]
    assert len(parents) == 2
    return [stage, *parents]


# A whole job


@pytest.mark.slow
def test_a_job_runs_dvc_repro_and_its_logs_and_status_come_back(
    project, running, typed, monkeypatch
):
    status, out, err = echosyn(project, "submit", "--address", running.jobs_address, "phantom")
    assert status == 0, out + err
    assert "cluster: 2 nodes, 2 CPU" in out
    assert "Running stage 'phantom@phantom'" in out
    assert (project / "data" / "raw" / "phantom" / "FileList.csv").is_file()
    assert "succeeded" in err
    job = err.split(";")[0]
    status, logs, _ = typed("logs", "--address", running.jobs_address, job)
    assert status == 0
    assert "Running stage 'phantom@phantom'" in logs
    # The variable instead of the option.
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", running.jobs_address + "/")
    status, table, _ = typed("jobs")
    assert status == 0
    assert re.search(rf"{job} +SUCCEEDED .* phantom\n", table)


@pytest.mark.slow
def test_a_failing_stage_gives_its_message_and_a_status(running, typed):
    status, out, err = typed("submit", "--address", running.jobs_address, "failing")
    assert status not in (0, 1)  # dvc's own
    assert "no 'nowhere' under datasets" in out
    assert "failed" in err


@pytest.mark.slow
def test_a_folder_the_head_does_not_have(running, typed):
    status, out, _ = typed(
        "submit", "--address", running.jobs_address, "--project", "/no/such folder"
    )
    assert status == 1
    assert "echosyn: no folder /no/such folder on the head node; --project" in out


@pytest.mark.slow
def test_stop_lets_the_stage_save_and_leaves_no_process(clean, running, typed):
    address = ("--address", running.jobs_address)
    status, out, _ = typed("submit", *address, "--no-wait", "slow")
    job = out.strip()
    assert status == 0
    assert re.fullmatch(r"raysubmit_\w+", job)
    processes = family(started(clean))
    status, out, err = typed("stop", *address, job)
    assert (status, out) == (0, f"{job} stopped\n"), err
    assert (clean / "saved").exists()
    _, alive = psutil.wait_procs(processes, timeout=120)
    assert not alive
    assert typed("logs", *address, "--follow", job)[0] == 130


@pytest.mark.slow
def test_a_killed_job_leaves_no_process(clean, running, typed):
    _, out, _ = typed("submit", "--address", running.jobs_address, "--no-wait", "slow")
    processes = family(started(clean))
    (runner,) = [p for p in processes if "echosyn.cluster.job" in p.cmdline()]
    runner.kill()
    _, alive = psutil.wait_procs(processes, timeout=120)
    assert not alive
    assert (clean / "saved").exists()
    status, _, _ = typed("logs", "--address", running.jobs_address, "--follow", out.strip())
    assert status not in (0, 130)


@pytest.mark.slow
def test_ctrl_c_stops_looking_not_the_job(clean, running, typed):
    popen = command(clean, "submit", "--address", running.jobs_address, "slow")
    with subprocess.Popen(**popen) as process:
        stage = started(clean)
        until(lambda: "line 0" in process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 3
    assert "goes on. Look again: echosyn logs --follow raysubmit_" in err
    assert stage.is_running()
    (clean / "go on").write_text("")
    job = err.split(";")[0]
    # From its beginning to its end.
    status, out, _ = typed("logs", "--address", running.jobs_address, "--follow", job)
    assert status == 0
    assert "line 0 of the stage" in out


@pytest.mark.slow
def test_a_job_asked_to_stop_waits_for_its_stage(clean, running):
    """As a batch system does it, which signals the job alone and takes the machine when it ends."""
    popen = command(clean, "unused", RAY_ADDRESS=running.address)
    popen["args"] = [sys.executable, "-m", "echosyn.cluster.job", "--force", "slow"]
    with subprocess.Popen(**popen) as process:
        stage = started(clean)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)
    assert (clean / "saved").exists()
    assert process.returncode != 0
    assert not stage.is_running()


@pytest.mark.slow
def test_following_survives_a_lost_connection_and_repeats_no_line(clean, running):
    proxy = Proxy(running.jobs_port)
    popen = command(clean, "submit", "--address", proxy.address, "--force", "slow")
    with subprocess.Popen(**popen) as process:
        started(clean)
        lines = [process.stdout.readline()]
        while "line 3" not in lines[-1]:
            lines.append(process.stdout.readline())
        before = len(proxy.ends)
        proxy.drop()
        until(lambda: len(proxy.ends) > before)
        (clean / "go on").write_text("")
        lines += process.stdout.readlines()
        err = process.stderr.read()
    assert process.returncode == 0, err
    numbers = [int(n) for n in re.findall(r"line (\d+) of", "".join(lines))]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 4


# Nodes that cannot work on the project


def can_unshare():
    done = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    return done.returncode == 0


@pytest.mark.slow
def test_a_node_without_the_folder_and_with_another_torch_is_named(project, running, tmp_path):
    if not can_unshare():
        pytest.skip("this user may not make mount namespaces")
    metadata = Path(str(distribution("torch").locate_file(""))) / distribution("torch")._path.name
    other = tmp_path / "METADATA"
    other.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0.1\n")
    inside = [
        "unshare", "-m", "sh", "-c",
        'mount -t tmpfs none "$1" && mount --bind "$2" "$3" && shift 3 && exec "$@"', "sh",
        str(project), str(other), str(metadata / "METADATA"),
    ]  # fmt: skip
    running.add_node(inside=inside)
    try:
        address = ("--address", running.jobs_address)
        status, out, err = echosyn(project, "submit", *address, "phantom")
        assert status == 1, out + err
        assert "the cluster cannot work on this project" in out, out + err
        assert f"does not see the project folder {project}: it must lie on a file system" in out
        assert re.search(r"node \S+ \(\S+, \w+\) has torch 2\.0\.1, the driver 2\.13", out)
        assert out.count(" has torch ") == out.count("does not see") == 1, "of the one node"
        assert "Running stage" not in out
        assert not list((project / ".echosyn" / "cluster").iterdir())
    finally:
        running.lose_node(len(running.nodes) - 1)


# What nodes report


@pytest.mark.parametrize("what", COMPARED)
def test_another_version_on_a_node_is_named_with_the_fix(what):
    mine = here()
    good = {**mine, "nonce": "n", "write": "yes"}
    assert differences({"node a": good}, mine, "n", Path("/p")) == []
    (problem,) = differences(
        {"node a": good, "node b": {**good, what: "0.1"}}, mine, "n", Path("/p")
    )
    assert problem.startswith(f"node b has {what} 0.1, the driver {mine[what]}: start Ray on every")


def test_a_folder_a_node_cannot_write_to_is_named():
    mine = here()
    report = {**mine, "nonce": "n", "error": "Read-only file system"}
    (problem,) = differences({"node b": report}, mine, "n", Path("/p"))
    assert problem == "node b cannot write to /p: Read-only file system"
    report = {**mine, "nonce": "another cluster's"}
    (problem,) = differences({"node b": report}, mine, "n", Path("/p"))
    assert "node b does not see the project folder /p" in problem


# Addresses


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://head:10001", "http://head:8265 by default, not the cluster's own port or a Ray"),
        ("head:6379", "http://head:8265 by default"),
        ("auto", "http://HEAD:8265 by default"),
        ("ftp://head:21", "http://head:8265 by default"),
    ],
)
def test_the_wrong_kind_of_address_is_refused_with_the_right_one(address, words, monkeypatch):
    with pytest.raises(EchosynError, match=re.escape(words)):
        jobs_address(address)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address)
    with pytest.raises(EchosynError, match="RAY_API_SERVER_ADDRESS"):
        jobs_address(None)


def test_no_address_at_all(monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(EchosynError, match=r"--address http://HEAD:8265.*dvc repro"):
        jobs_address(None)


@pytest.fixture
def refusal(project, monkeypatch, capsys):
    """What `echosyn submit` says, in this process, when it does not submit."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def refused(address):
        assert main(["submit", "--address", address, "phantom"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("echosyn: ")
        assert len(err.splitlines()) == 1, err
        return err

    return refused


@pytest.mark.slow
def test_a_head_that_is_not_there(refusal):
    address = f"http://127.0.0.1:{free_port()}"
    text = refusal(address)
    assert f"nothing listens at {address}" in text
    assert "--include-dashboard=false" in text
    assert "cannot be reached" in refusal("http://head.invalid:8265")


@pytest.mark.slow
def test_the_clusters_own_port_behind_http(refusal, running):
    assert "is no jobs server" in refusal(f"http://{running.address}")


@pytest.fixture
def server():
    """Something else that speaks HTTP: answers with `answer`, (status, body)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = self.server.answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.server.asked += 1
            status, body = self.server.posted[min(self.server.asked, len(self.server.posted)) - 1]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        found.asked = 0
        found.address = f"http://127.0.0.1:{found.server_port}"
        yield found
        found.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, b"not here"), "is no jobs server"),
        ((200, b"<html>"), "is no jobs server"),
        ((200, b'{"ray_version": "2.40.0"}'), "runs Ray 2.40.0, this machine"),
        ((401, b"Unauthorized: Missing authentication token"), "refused access: set RAY_AUTH_MODE"),
        ((403, b"Forbidden: Invalid authentication token"), "refused access: set RAY_AUTH_MODE"),
    ],
)
def test_what_answers_but_cannot_take_the_job(refusal, server, answer, words):
    server.answer = answer
    assert words in refusal(server.address)


@pytest.mark.slow
def test_a_head_that_is_still_starting_is_waited_for(project, server):
    server.answer = (200, f'{{"ray_version": "{here()["ray"]}"}}'.encode())
    busy = (500, b"No available agent to submit job, please try again later.")
    server.posted = [
        busy,
        busy,
        (200, b'{"job_id": "raysubmit_1", "submission_id": "raysubmit_1"}'),
    ]
    command = ("submit", "--address", server.address, "--no-wait")
    status, out, err = echosyn(project, *command)
    assert (status, out) == (0, "raysubmit_1\n"), err
    assert err.count("still starting") == 2
    server.posted, server.asked = [busy], 0
    status, out, err = echosyn(project, *command)
    assert (status, server.asked) == (1, 4)
    assert "No available agent" in err


@pytest.mark.slow
def test_an_address_of_mlflow_with_a_password_stays_out_of_the_job(refusal, running, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@mlflow:5000")
    text = refusal(running.jobs_address)
    assert "MLFLOW_TRACKING_PASSWORD" in text
    assert "secret" not in text


@pytest.mark.slow
def test_submit_wants_a_project(tmp_path, running):
    status, _, err = echosyn(
        tmp_path, "submit", "--address", running.jobs_address,
        PYTHONPATH=str(Path(__file__).parents[2]),
    )  # fmt: skip
    assert status == 1
    assert f"no dvc.yaml in {tmp_path}" in err


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 3, 3), ("FAILED", None, 1), ("STOPPED", None, 130)],
)
def test_exit_status(status, code, expected):
    assert exit_status(Job("id", status, "all", 0.0, 1.0, code)) == expected


def test_the_command_offers_what_can_be_searched(capsys):
    """It lists the models itself, so that --help imports nothing heavy."""
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    assert "{" + ",".join(MODELS) + "}" in capsys.readouterr().out


@pytest.mark.slow
def test_help_is_quick_and_needs_nothing_heavy():
    code = (
        "import sys, contextlib\n"
        "from echosyn.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print([m for m in ('torch', 'ray', 'mlflow', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for name in ("submit", "jobs", "logs", "stop", "sync"):
        assert re.search(rf"^ +{name} ", done.stdout, re.M)
