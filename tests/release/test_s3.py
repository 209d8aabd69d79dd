"""A version pushed to an S3-like remote, and fetched from it by somebody with a clone alone.

Needs dvc-s3 and moto (60 MB with botocore): `pip install dvc-s3 'moto[s3]'`.
"""

import shutil

import pytest
from published_project import build, git, push, start

from echosyn.cli import main
from echosyn.release.manifest import verify
from echosyn.runtime.lineage import dvc_md5

pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed")
pytest.importorskip("moto.server", reason="moto's server is not installed")

BUCKET = "echosyn"


@pytest.fixture
def endpoint(monkeypatch):
    """The address of an S3 server of our own, with a bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    for name, value in (
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("NO_PROXY", "127.0.0.1"),
    ):
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket=BUCKET)
    yield address
    server.stop()


def test_a_version_goes_to_s3_and_comes_back(endpoint, tmp_path, monkeypatch, capsys):
    import boto3

    mine = start(tmp_path / "mine")
    remote = f"url = s3://{BUCKET}/project\n    endpointurl = {endpoint}"
    head = "[core]\n    remote = storage\n['remote \"storage\"']"
    (mine / ".dvc/config").write_text(f"{head}\n    {remote}\n")
    monkeypatch.chdir(mine)
    build(mine, "0.1.0")
    assert main(["releases", "publish", "phantom"]) == 1
    assert "not on DVC's default remote: dvc push" in capsys.readouterr().err
    push(mine)
    assert main(["releases", "publish", "phantom"]) == 0
    stored = boto3.client("s3", endpoint_url=endpoint).list_objects_v2(Bucket=BUCKET)
    files = [p for p in (mine / "releases/phantom").rglob("*") if p.is_file()]
    assert stored["KeyCount"] == len(files) + 1  # and the list of them
    published = dvc_md5(mine / "releases/phantom")
    git(tmp_path, "clone", "-q", "--bare", str(mine), "bare.git")
    shutil.rmtree(mine)
    monkeypatch.chdir(tmp_path)
    fetch = ["releases", "fetch", "phantom@0.1.0", "--from", f"file://{tmp_path}/bare.git"]
    assert main([*fetch, "--out", "out"]) == 0
    assert verify(tmp_path / "out") == []
    assert dvc_md5(tmp_path / "out") == published
    lost = stored["Contents"][0]["Key"]
    boto3.client("s3", endpoint_url=endpoint).delete_object(Bucket=BUCKET, Key=lost)
    assert main([*fetch, "--out", "again"]) == 1
    assert "not all of it is in DVC's cache or on its remote" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()
