"""The signature of a release, beside OpenSSH, which must read ours and write what we read."""

import base64
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from small_project import make_project, released

from echosyn.cli import main as cli
from echosyn.release import verify
from echosyn.release.leaks import find_leaks
from echosyn.release.sign import (
    NAMESPACE,
    VARIABLE,
    _split,
    _strings,
    fingerprint,
    sign,
    signature_problems,
    signing_key,
)
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_json

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
needs_openssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH here")


def private(key, form=PrivateFormat.OpenSSH, encryption=None):
    return key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())


def public(key):
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "key").write_bytes(private(KEY))
    (folder / "key").chmod(0o600)
    (folder / "key.pub").write_bytes(public(KEY) + b" someone\n")
    (folder / "other.pub").write_bytes(public(OTHER))
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pem").write_bytes(pem)
    return folder


@pytest.fixture
def release(tmp_path):
    """No release but its manifest, which is all that is signed."""
    folder = tmp_path / "release"
    write_json(folder / "manifest.json", {"name": "x", "version": "1.0.0"})
    sign(folder, KEY)
    return folder


def test_a_release_is_signed_verified_and_the_same_again(tmp_path, keys, capsys):
    root = make_project(tmp_path / "project")
    for name in ("phantom", "again"):
        released(root, name, key=KEY)
    folder = root / "releases/phantom"
    again = (root / "releases/again/manifest.json.sig").read_bytes()
    assert (folder / "manifest.json.sig").read_bytes() == again
    assert verify(folder) == []
    assert cli(["releases", "verify", str(folder), "--key", str(keys / "key.pub")]) == 0
    assert "is signed with the key in" in capsys.readouterr().out
    assert cli(["releases", "verify", str(folder), "--key", str(keys / "other.pub")]) == 1
    assert "made with SHA256:" in capsys.readouterr().err
    assert cli(["releases", "verify", str(folder), "--key", str(keys / "none.pub")]) == 1
    assert "none.pub: cannot be read" in capsys.readouterr().err
    secret = private(KEY).splitlines()[2]
    assert not any(secret in p.read_bytes() for p in folder.rglob("*") if p.is_file())


def test_what_is_wrong_with_a_signature_is_said(release, keys):
    key, signature = keys / "key.pub", release / "manifest.json.sig"
    assert signature_problems(release, key) == signature_problems(release, keys / "key.pem") == []
    (said,) = signature_problems(release, keys / "other.pub")
    assert fingerprint(KEY.public_key()) in said
    assert fingerprint(OTHER.public_key()) in said
    good = signature.read_text()
    write_json(release / "manifest.json", {"name": "x", "version": "1.0.1"})
    (said,) = signature_problems(release, key)
    assert said.startswith("manifest.json: changed since it was signed")
    signature.write_text(good.replace("SIGNATURE", "MESSAGE"))
    assert signature_problems(release, key) == ["manifest.json.sig: not an SSH signature"]
    signature.unlink()
    (said,) = signature_problems(release, key)
    assert said == "manifest.json.sig: missing: the release is not signed"


def test_no_changed_byte_of_a_signature_is_taken(release, keys):
    path = release / "manifest.json.sig"
    begin, *lines, end = path.read_text().splitlines()
    data = base64.b64decode("".join(lines))
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        path.write_text("\n".join([begin, base64.b64encode(changed).decode(), end]))
        assert len(signature_problems(release, keys / "key.pub")) == 1, at


@needs_openssh
def test_openssh_verifies_our_signature(release, keys):
    signers = keys / "signers"
    signers.write_bytes(b"publisher " + public(KEY))
    command = [
        *("ssh-keygen", "-Y", "verify", "-f", signers, "-I", "publisher", "-n", NAMESPACE),
        *("-s", release / "manifest.json.sig"),
    ]
    data = (release / "manifest.json").read_bytes()
    good = subprocess.run(command, input=data, capture_output=True, check=False)
    assert good.returncode == 0, good.stderr
    bad = subprocess.run(command, input=data + b" ", capture_output=True, check=False)
    assert bad.returncode != 0
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", keys / "key.pub"], capture_output=True, text=True, check=True
    )
    assert fingerprint(KEY.public_key()) in listed.stdout


@needs_openssh
@pytest.mark.parametrize("namespace", [NAMESPACE, "git"])
def test_we_verify_openssh_s_signature_for_a_release_alone(namespace, release, keys):
    (release / "manifest.json.sig").unlink()
    command = ["ssh-keygen", "-Y", "sign", "-f", keys / "key", "-n", namespace]
    subprocess.run([*command, release / "manifest.json"], capture_output=True, check=True)
    said = signature_problems(release, keys / "key.pub")
    expected = ["manifest.json.sig: not a signature for the namespace echosyn-release"]
    assert said == ([] if namespace == NAMESPACE else expected)


@pytest.mark.parametrize(
    "data", [private(KEY), private(KEY, PrivateFormat.PKCS8)], ids=["openssh", "pem"]
)
def test_the_environment_names_the_key(data, tmp_path, monkeypatch):
    (tmp_path / "key").write_bytes(data)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "key"))
    key = signing_key()
    assert key.private_bytes_raw() == bytes(range(32))
    monkeypatch.delenv(VARIABLE)
    assert signing_key() is None


RSA = generate_private_key(65537, 2048)
LOCKED = BestAvailableEncryption(b"word")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no private ed25519 key"),
        (public(KEY), "holds no private ed25519 key"),
        (private(RSA), "holds no private ed25519 key"),
        (private(KEY, PrivateFormat.PKCS8, LOCKED), "protected by a passphrase"),
        (None, "cannot be read"),
    ],
)
def test_another_file_is_refused_by_name(data, said, tmp_path, monkeypatch):
    if data is not None:
        (tmp_path / "key").write_bytes(data)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "key"))
    with pytest.raises(EchosynError, match=rf"ECHOSYN_SIGNING_KEY: .*key.*{said}"):
        signing_key()


@pytest.mark.parametrize("data", [b"", private(KEY), b"ssh-ed25519 AAAA", b"\xff\xfe"])
def test_what_is_no_public_key_is_refused(data, release, tmp_path):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(EchosynError, match="holds no public ed25519 key"):
        signature_problems(release, tmp_path / "file")


@given(st.lists(st.binary(max_size=40)))
def test_ssh_strings_come_back(parts):
    assert _split(_strings(*parts)) == parts


@given(st.binary(max_size=300))
def test_what_is_no_list_of_ssh_strings_is_a_value_error(data):
    try:
        parts = _split(data)
    except ValueError:
        return
    assert _strings(*parts) == data


def test_a_private_key_must_not_be_released_and_a_signature_may(release):
    assert find_leaks(release, ["0XSOMEBODY1"], people=()) == []
    lines = ["-----BEGIN SSH SIGNATURE-----", "/home/someone", "-----END SSH SIGNATURE-----"]
    (release / "manifest.json.sig").write_text("\n".join(lines))
    assert find_leaks(release, ["0XSOMEBODY1"], people=()) == []
    (release / "notes.txt").write_bytes(private(KEY))
    (found,) = find_leaks(release, ["0XSOMEBODY1"], people=())
    assert "a private key" in found.what
