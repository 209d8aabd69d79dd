import hashlib
import hmac
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echosyn.data.ingest.pseudonym import Pseudonymiser, make_key, read_key, split_of
from echosyn.runtime.errors import EchosynError

KEY = bytes(range(32))
GOOD = KEY.hex()


def write(path, text=GOOD, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def test_it_is_an_hmac_of_the_number():
    expected = hmac.new(KEY, b"patient\0MRN-1", hashlib.sha256).hexdigest()[:16].upper()
    assert Pseudonymiser(KEY).patient(" mrn-1\t") == "P" + expected
    assert Pseudonymiser(bytes(32)).patient("MRN-1") != "P" + expected
    assert Pseudonymiser(KEY).digits("video", b"MRN-1") != expected


def test_it_never_shows_its_key():
    assert KEY.hex() not in repr(Pseudonymiser(KEY))
    assert str(KEY) not in repr(Pseudonymiser(KEY))


def test_no_number():
    with pytest.raises(EchosynError, match="no patient number"):
        Pseudonymiser(KEY).patient("  ")


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    file = make_key(tmp_path / "new" / "key")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o077 == 0
    assert len(read_key(file, tmp_path / "raw").key) == 32
    assert (
        read_key(file, tmp_path / "raw").key
        != read_key(make_key(tmp_path / "b"), tmp_path / "raw").key
    )
    before = file.read_bytes()
    with pytest.raises(EchosynError, match="a key is there already"):
        make_key(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (KEY.hex(), 0o644, "can be used by others .mode 644.; run: chmod 600"),
        (KEY.hex(), 0o640, "can be used by others"),
        (KEY.hex()[:62], 0o600, "too short: 31 bytes"),
        ("", 0o600, "too short: 0 bytes"),
        ("correct horse battery staple", 0o600, "not hex digits"),
        ("\u00e9" * 64, 0o600, "not hex digits"),
        ("00" * 32, 0o600, "repeats itself"),
    ],
)
def test_a_bad_key_is_refused_without_showing_it(tmp_path, text, mode, message):
    with pytest.raises(EchosynError, match=message) as e:
        read_key(write(tmp_path / "key", text, mode), tmp_path / "raw")
    assert not text or text not in str(e.value)


@pytest.mark.parametrize("mark", [".git", ".dvc", "dvc.yaml", "params.yaml"])
def test_a_key_in_a_project_is_refused(tmp_path, mark):
    (tmp_path / mark).mkdir()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    with pytest.raises(EchosynError, match=f"inside a project .* holds {mark}"):
        read_key(write(tmp_path / "deep" / "er" / "key"), tmp_path / "raw")
    with pytest.raises(EchosynError, match="inside a project"):
        make_key(tmp_path / "deep" / "new")
    outside = tmp_path.parent / f"link-{tmp_path.name}"
    outside.symlink_to(tmp_path / "deep" / "er" / "key")
    with pytest.raises(EchosynError, match="inside a project"):
        read_key(outside, tmp_path / "raw")


def test_a_key_beside_the_data_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(EchosynError, match="lies with the data"):
        read_key(write(tmp_path / "raw" / "key"), tmp_path / "raw")


def test_a_missing_key_says_how_to_make_one(tmp_path):
    with pytest.raises(
        EchosynError, match=r"make one with: python -m echosyn\.data\.ingest\.new_key"
    ):
        read_key(tmp_path / "none", tmp_path)


@pytest.mark.slow
def test_the_command_makes_a_key(tmp_path):
    command = [sys.executable, "-m", "echosyn.data.ingest.new_key", str(tmp_path / "key")]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert read_key(tmp_path / "key", tmp_path / "raw").key.hex() not in first.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr.startswith("echosyn: ")


@given(st.text(min_size=1), st.integers(0, 100))
def test_a_split_is_a_function_of_pseudonym_and_seed(name, seed):
    shares = (0.5, 0.2, 0.3)
    assert split_of(name, shares, seed) == split_of(name, shares, seed)
    assert split_of(name, (1, 0, 0), seed) == "TRAIN"
    assert split_of(name, (0, 1, 0), seed) == "VAL"
    assert split_of(name, (0, 0, 1), seed) == "TEST"


def test_shares_are_met_on_average():
    splits = [split_of(f"P{i}", (0.7, 0.1, 0.2), 3) for i in range(5000)]
    # 5 standard errors
    assert splits.count("TRAIN") / 5000 == pytest.approx(0.7, abs=0.033)
    assert splits.count("VAL") / 5000 == pytest.approx(0.1, abs=0.022)
