"""The page that makes single videos: what it makes and says is what the stages made and wrote."""

import json
import shutil
import threading
import urllib.error
import urllib.request

import numpy as np
import pandas as pd
import pytest
from html_page import problems
from werkzeug.serving import make_server

from echosyn.app.maker import Made, Maker, Verdict, Wish
from echosyn.app.server import HOST, create_app, require_port, shown
from echosyn.cli import main
from echosyn.data.filelist import HEART_RATE, read_filelist, video_path
from echosyn.data.video import read_video
from echosyn.metrics.interval import Estimate
from echosyn.runtime.config import Params
from echosyn.runtime.errors import EchosynError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # waits for the whole graph
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def maker(project, tmp_path_factory):
    return Maker(Params(project), "phantom", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def made(maker, project):
    """A candidate's row of the FileList, and the video made of what it was asked for."""
    row = read_filelist(project / "candidates/phantom/FileList.csv").iloc[2]
    rate = row[HEART_RATE] if pd.notna(row.get(HEART_RATE)) else None
    *steps, video = maker.make(Wish(int(row["FileName"][-6:]), float(row["EF"]), rate))
    assert len(steps) == 4
    assert isinstance(video, Made)
    return row, video


@pytest.fixture(scope="module")
def address(maker):
    server = make_server(HOST, 0, create_app(maker), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{HOST}:{server.port}"
    server.shutdown()


def post(address, wish, headers=JSON):
    data = wish if isinstance(wish, bytes) else json.dumps(wish).encode()
    request = urllib.request.Request(f"{address}/videos", data, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [json.loads(line) for line in answer]


def test_a_candidate_comes_out_again(made, project):
    row, video = made
    frames, fps = read_video(video_path(project / "candidates/phantom", row["FileName"]))
    assert (video.name, video.fps) == (row["FileName"], fps)
    assert (video.frames == frames).all()


def test_it_is_judged_and_measured_as_the_stages_did(made, project):
    row, video = made
    heart, similarity, ncc = video.verdicts
    hearts = pd.read_csv(project / "privacy/phantom/hearts/scores.csv")
    assert heart.score == pytest.approx(hearts["similarity"][video.wish.heart], abs=1e-5)
    assert heart.refused != hearts["accepted"][video.wish.heart]
    scores = pd.read_csv(project / "privacy/phantom/videos/video_scores.csv").set_index("video")
    found = scores.loc[row["FileName"]]
    assert (similarity.score, ncc.score) == pytest.approx((found.similarity, found.ncc), abs=1e-5)
    assert (similarity.refused or ncc.refused) != found.accepted
    taus = json.loads((project / "privacy/phantom/videos/calibration.json").read_text())["taus"]
    assert [similarity.tau.value, ncc.tau.value] == [taus[n]["tau"] for n in ("similarity", "ncc")]
    released = pd.read_csv(project / "evaluation/phantom/requested.csv").set_index("FileName")
    if row["FileName"] in released.index:
        # evaluate looks at other clips of it, several videos at once.
        assert video.ef == pytest.approx(released["ef_measured"][row["FileName"]], abs=0.5)


def test_one_detector_at_its_threshold_refuses():
    tau = Estimate(0.9, 0.8, 0.95)
    verdicts = (Verdict("a", 0.89, tau), Verdict("b", 0.9, tau))
    assert [v.refused for v in verdicts] == [False, True]
    frames = np.zeros((5, 8, 8), np.uint8)
    wish = Wish(3, ef=40.0, rate=70.0)
    page = shown(Made("SYN_x", wish, "a <note>", frames, 16.0, 41.26, None, verdicts), 2.5)
    assert "Refused: too similar" in page
    assert "<td>40</td><td>41.3</td>" in page
    assert "<td>70</td><td>not sure</td>" in page
    assert "<td>0.9<small>(0.8 to 0.95)</small></td><td>refused</td>" in page
    assert "err by 2.5 points" in page
    assert "a &lt;note&gt;" in page
    kept = Made("SYN_x", Wish(3), "", frames, 16.0, None, None, verdicts[:1])
    assert "Kept: below every" in shown(kept, None)
    assert "asked" not in shown(kept, None)


def test_a_number_beyond_the_kept_hearts_is_a_new_one_each_time_the_same(maker):
    first = len(maker.hearts)
    new, again, other = (maker.heart(i).latents for i in (first, first, first + 1))
    assert (new == again).all()
    assert not (new == other).all()


def test_the_page_stands_alone_and_names_its_controls(address):
    with urllib.request.urlopen(address) as answer:
        page = answer.read().decode()
    assert problems(page) == []
    assert "default-src 'none'" in page
    for name in ("heart", "ef", "seed"):
        assert f'name="{name}"' in page


def test_asked_over_http_it_tells_its_steps_then_shows_the_video(address, made):
    row, video = made
    wish = {"heart": video.wish.heart, "ef": video.wish.ef, "rate": video.wish.rate}
    *steps, last = post(address, wish)
    assert [s["number"] for s in steps] == [0, 1, 2, 3]
    page = last["html"]
    assert "data:image/webp;base64," in page
    assert ("Refused:" if video.refused else "Kept:") in page
    assert row["FileName"] in page
    assert page.count("<td>refused</td>") == sum(v.refused for v in video.verdicts)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"heart": 0, "ef": 140}, "ef: 140.0 is above"),
        ({"heart": -1}, "heart: -1 is below"),
        ({"heart": 0, "hart": 1}, "unknown setting 'hart'"),
        ({"heart": 0, "ef": 50, "kind": "no such class"}, "class 'no such class' is not one"),
        ([1], "expected settings"),
    ],
)
def test_what_cannot_be_made_is_said(address, wish, said):
    assert said in post(address, wish)[-1]["error"]


def test_one_video_at_a_time(address, maker):
    with maker.turn:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(post(address, {"heart": -1})))
        asking.start()
        asking.join(0.5)
        assert not answers
    asking.join(30)
    assert [list(line) for line in answers[0]] == [["step", "number"], ["error"]]


def test_another_sites_page_is_refused(address):
    for path, headers, data, status in (
        ("/", {"Host": "evil.example"}, None, 400),
        ("/videos", {"Content-Type": "text/plain"}, b'{"heart": 0}', 415),
    ):
        request = urllib.request.Request(address + path, data, headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == status


def test_what_is_missing_is_named(project, tmp_path, monkeypatch, capsys):
    for name in ("params.yaml", "conf", "hearts"):
        copy = shutil.copytree if (project / name).is_dir() else shutil.copy
        copy(project / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert main(["app", "--port", "0"]) == 1
    said = capsys.readouterr().err
    assert "privacy/phantom/hearts" in said
    assert "make demo" in said
    assert main(["app", "echo"]) == 1
    assert "'echo' is not under generate in params.yaml: phantom" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(address):
    with pytest.raises(EchosynError, match="give another --port"):
        require_port(int(address.rpartition(":")[2]))
