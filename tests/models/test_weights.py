"""Published weights: only the right bytes are read, and they are fetched only when asked for."""

import hashlib
import http.server
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from echosyn.cli import main
from echosyn.metrics import weights
from echosyn.runtime.errors import EchosynError

CONTENT = bytes(range(256)) * 20_000  # 5 MB


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "echosyn" / "weights"


@pytest.fixture
def server():
    """Serves `answers`: path to bytes, and a promised length where it is not theirs."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path not in answers:
                self.send_error(404)
                return
            body, promised = answers[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(promised))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args):
            pass

    answers, asked = {}, []
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}", answers, asked
    made.shutdown()
    made.server_close()
    thread.join()


def small(monkeypatch, name, *urls, kind="sha256"):
    """The table's entry for `name` with CONTENT in its place."""
    data = CONTENT if kind == "sha256" else b"blob %d\0" % len(CONTENT) + CONTENT
    digest = hashlib.new({"sha256": "sha256", "git": "sha1"}[kind], data).hexdigest()
    entry = replace(
        weights.KNOWN[name], bytes=len(CONTENT), kind=kind, digest=digest, urls=tuple(urls)
    )
    monkeypatch.setitem(weights.KNOWN, name, entry)
    return entry


def test_the_table_is_the_published_one():
    # Of the files that the papers' numbers were made with: no other may pass for them.
    inception, i3d = weights.KNOWN["inception"], weights.KNOWN["i3d"]
    assert inception.bytes == 95_628_359
    assert inception.digest.startswith("6726825d0af5f729")
    assert inception.digest[:8] in inception.file
    assert (i3d.bytes, i3d.kind) == (50_818_176, "git")
    assert i3d.digest == "fa7df95674dbf3579e7fccd954e51e706b4734c1"
    assert all(url.startswith("https://") for w in weights.KNOWN.values() for url in w.urls)


def test_a_git_blob_hash_is_gits(tmp_path, monkeypatch):
    entry = small(monkeypatch, "i3d", kind="git")
    file = tmp_path / "blob"
    file.write_bytes(CONTENT)
    git = subprocess.run(
        ["git", "hash-object", "--no-filters", file], capture_output=True, text=True, check=True
    )
    assert git.stdout.strip() == entry.digest
    assert weights.locate("i3d", file) == file


@pytest.mark.parametrize("kind", ["sha256", "git"])
def test_fetch_verify_and_find(cache, server, monkeypatch, capsys, kind):
    url, answers, asked = server
    answers["/file"] = CONTENT, len(CONTENT)
    entry = small(monkeypatch, "inception", f"{url}/gone", f"{url}/file", kind=kind)
    assert weights.state("inception") == "not fetched"
    with pytest.raises(EchosynError, match=r"is missing; run `echosyn weights fetch inception`"):
        weights.locate("inception")
    assert asked == []  # looking for a file never fetches it
    assert main(["weights", "fetch", "inception"]) == 0
    assert asked == ["/gone", "/file"]
    target = cache / entry.file
    assert capsys.readouterr().out == f"{target}\n"
    assert weights.locate("inception") == target
    assert weights.state("inception") == "here"
    assert [p.name for p in cache.iterdir()] == [entry.file]
    assert weights.fetch("inception") == target
    assert len(asked) == 2  # what is there is not fetched again


@pytest.mark.parametrize(
    ("body", "promised", "match"),
    [
        (CONTENT[:-1] + b"\0", len(CONTENT), "sha256 .*, expected"),
        (CONTENT[:1000], 1000, "1,000 bytes, expected 5,120,000"),
        (CONTENT[:1000], len(CONTENT), "could not fetch inception: http"),
        (CONTENT + b"more", len(CONTENT) + 4, "bytes, expected 5,120,000"),
    ],
    ids=["wrong byte", "short", "cut off", "long"],
)
def test_another_file_is_never_kept(cache, server, monkeypatch, body, promised, match):
    url, answers, _ = server
    answers["/file"] = body, promised
    small(monkeypatch, "inception", f"{url}/file")
    with pytest.raises(EchosynError, match=match) as e:
        weights.fetch("inception")
    assert str(weights.cached("inception")) in str(e.value)  # where to put it by hand
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_replaced(cache, server, monkeypatch):
    url, answers, _ = server
    answers["/file"] = CONTENT, len(CONTENT)
    entry = small(monkeypatch, "inception", f"{url}/file")
    cache.mkdir(parents=True)
    (cache / entry.file).write_bytes(CONTENT[:-1] + b"\0")
    assert weights.state("inception") == "damaged"
    assert weights.fetch("inception").read_bytes() == CONTENT


def test_without_a_network_the_message_helps(cache, server, monkeypatch, capsys):
    closed = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    closed.server_close()
    entry = small(monkeypatch, "i3d", f"http://127.0.0.1:{closed.server_port}/file", kind="git")
    assert main(["weights", "fetch", "i3d"]) == 1
    message = capsys.readouterr().err
    assert "refused" in message
    assert f"put it at {cache / entry.file} (5,120,000 bytes, git blob {entry.digest})" in message


@pytest.mark.parametrize("at", [0, 2_500_000, len(CONTENT) - 1])
def test_one_wrong_byte_is_refused(tmp_path, monkeypatch, at):
    small(monkeypatch, "inception")
    file = tmp_path / "mine.pth"
    file.write_bytes(CONTENT)
    assert weights.locate("inception", file) == file
    damaged = bytearray(CONTENT)
    damaged[at] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(EchosynError, match=r"mine\.pth: not the published weights of FID, IS"):
        weights.locate("inception", file)
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(EchosynError, match="5,119,999 bytes, expected 5,120,000"):
        weights.locate("inception", str(file))


def test_paths_and_names_that_are_wrong(tmp_path):
    with pytest.raises(EchosynError, match="is a folder"):
        weights.locate("i3d", tmp_path)
    with pytest.raises(EchosynError, match=r"called 'vgg'; known: inception, i3d"):
        weights.fetch("vgg")


def test_the_list(cache, monkeypatch, capsys):
    entry = small(monkeypatch, "inception")
    cache.mkdir(parents=True)
    (cache / entry.file).write_bytes(CONTENT)
    assert main(["weights"]) == 0
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["inception", "i3d"]
    assert " here " in rows[0]
    assert " not fetched " in rows[1]
    assert all("Apache-2.0" in row for row in rows)


@pytest.mark.slow
def test_importing_opens_no_connection():
    code = (
        "import socket, sys\n"
        "def refuse(*_): sys.exit('connected')\n"
        "socket.socket.connect = refuse\n"
        "import echosyn.metrics.weights, echosyn.metrics.inception, echosyn.metrics.i3d\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
