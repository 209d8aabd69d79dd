"""The signature of a release: manifest.json.sig, as `ssh-keygen -Y sign` would write it.

The format is OpenSSH's PROTOCOL.sshsig with an ed25519 key, so that `ssh-keygen -Y verify` reads
what is written here, and a release may as well be signed with `ssh-keygen -Y sign` and a key that
only its agent holds.
"""

import base64
import hashlib
import os
import struct
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from echosyn.release.manifest import MANIFEST, SIGNATURE
from echosyn.runtime.errors import EchosynError
from echosyn.runtime.files import write_text

VARIABLE = "ECHOSYN_SIGNING_KEY"
NAMESPACE = "echosyn-release"  # a signature for another purpose is none of a release
MAGIC, KIND = b"SSHSIG", b"ssh-ed25519"
HEAD = MAGIC + struct.pack(">I", 1)  # version 1
HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
WIDTH = 70


def signing_key() -> Ed25519PrivateKey | None:
    """The private key in the file that ECHOSYN_SIGNING_KEY names; None where it names none.

    Raises:
        EchosynError: no such file, no ed25519 key in OpenSSH or PEM form, or one with a passphrase.
    """
    if not (name := os.environ.get(VARIABLE)):
        return None
    path = Path(name).expanduser()
    data = _read(path, VARIABLE)
    load = load_ssh_private_key if b"BEGIN OPENSSH" in data else load_pem_private_key
    try:
        key = load(data, password=None)
    except TypeError:
        raise EchosynError(
            f"{VARIABLE}: {path} is protected by a passphrase: release without it, then run "
            f"ssh-keygen -Y sign -n {NAMESPACE} -f {path} {MANIFEST} in the release"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise EchosynError(
            f"{VARIABLE}: {path} holds no private ed25519 key in OpenSSH or PEM form: make one "
            "with ssh-keygen -t ed25519"
        )
    return key


def sign(folder: Path, key: Ed25519PrivateKey) -> None:
    """Write the signature of a release's manifest beside it."""
    digest = hashlib.sha512((folder / MANIFEST).read_bytes()).digest()
    signature = _strings(KIND, key.sign(_signed(b"sha512", digest)))
    parts = (_blob(key.public_key()), NAMESPACE.encode(), b"", b"sha512", signature)
    text = base64.b64encode(HEAD + _strings(*parts)).decode()
    lines = [text[i : i + WIDTH] for i in range(0, len(text), WIDTH)]
    write_text(folder / SIGNATURE, "\n".join([BEGIN, *lines, END, ""]))


def signature_problems(folder: Path, key_file: Path) -> list[str]:
    """What is wrong with a release's signature, one line; empty when this key made it.

    Args:
        key_file: a public ed25519 key, in OpenSSH (one line) or PEM form.

    Raises:
        EchosynError: the key cannot be read, or is no such key.
    """
    key = public_key(key_file)
    path = folder / SIGNATURE
    if not path.is_file():
        return [f"{SIGNATURE}: missing: the release is not signed"]
    try:
        blob, namespace, _, hashed, signed = _split(_body(path.read_text(encoding="utf-8")))
        if blob != _blob(key):
            other = f"made with {_name(blob)}, not with {fingerprint(key)} of {key_file}"
            return [f"{SIGNATURE}: {other}"]
        kind, signature = _split(signed)
    except ValueError:
        return [f"{SIGNATURE}: not an SSH signature"]
    if namespace != NAMESPACE.encode() or hashed not in HASHES or kind != KIND:
        return [f"{SIGNATURE}: not a signature for the namespace {NAMESPACE}"]
    try:
        digest = HASHES[hashed]((folder / MANIFEST).read_bytes()).digest()
        key.verify(signature, _signed(hashed, digest))
    except (InvalidSignature, OSError):
        return [f"{MANIFEST}: changed since it was signed, or {SIGNATURE} is of another release"]
    return []


def fingerprint(key: Ed25519PublicKey) -> str:
    """As `ssh-keygen -l` prints it: SHA256 and base64 without padding."""
    return _name(_blob(key))


def _name(blob: bytes) -> str:
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return f"SHA256:{digest.rstrip('=')}"


def public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a file; raises EchosynError when there is none, or one of another kind."""
    data = _read(path, "--key")
    try:
        load = load_pem_public_key if b"-----BEGIN" in data else load_ssh_public_key
        key = load(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise EchosynError(f"--key: {path} holds no public ed25519 key in OpenSSH or PEM form")
    return key


def _read(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise EchosynError(f"{where}: {path}: cannot be read ({e.strerror})") from None


def _blob(key: Ed25519PublicKey) -> bytes:
    return base64.b64decode(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])


def _signed(hashed: bytes, digest: bytes) -> bytes:
    """The bytes that an SSH signature signs (PROTOCOL.sshsig, 3.)."""
    return MAGIC + _strings(NAMESPACE.encode(), b"", hashed, digest)


def _strings(*parts: bytes) -> bytes:
    """SSH strings (RFC 4251, 5.): length as uint32, then the bytes."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def _split(data: bytes) -> list[bytes]:
    """What `_strings` joined. Raises ValueError when it joined nothing of the kind."""
    parts = []
    while data:
        length = int.from_bytes(data[:4], "big")
        if len(data) < 4 + length:
            raise ValueError("a string that ends too early")
        parts.append(data[4 : 4 + length])
        data = data[4 + length :]
    return parts


def _body(text: str) -> bytes:
    """What follows the version in an armoured SSH signature. Raises ValueError when it is none."""
    text = text.strip()
    if not text.startswith(BEGIN) or not text.endswith(END):
        raise ValueError("no armour")
    data = base64.b64decode("".join(text[len(BEGIN) : -len(END)].split()), validate=True)
    if not data.startswith(HEAD):
        raise ValueError("no SSH signature of version 1")
    return data[len(HEAD) :]
