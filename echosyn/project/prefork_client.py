"""What `python` is in the folder of prefork.py: asks there for a process, and is its stand-in.

python -IS prefork_client.py FOLDER PYTHON ARGUMENTS...
"""

import contextlib
import json
import os
import signal
import socket
import struct
import sys

folder, python, *arguments = sys.argv[1:]


def itself() -> None:
    os.execv(python, [python, *arguments])


if len(arguments) < 2 or arguments[0] != "-m" or not arguments[1].startswith("pipelines."):
    itself()
if not os.path.exists(os.path.join(folder, "ready")):
    itself()

umask = os.umask(0)
os.umask(umask)
asked = json.dumps([arguments[1:], os.getcwd(), dict(os.environ), umask]).encode()
place = os.open(folder, os.O_RDONLY)
with socket.socket(socket.AF_UNIX) as server:
    try:
        server.connect(f"/proc/self/fd/{place}/socket")
    except OSError:  # it has ended
        itself()
    socket.send_fds(server, [struct.pack("!I", len(asked))], [0, 1, 2])
    server.sendall(asked)

    def hand_on(number: int, frame: object) -> None:
        with contextlib.suppress(OSError):
            server.send(bytes([number]))

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, hand_on)
    status = server.recv(1)
sys.exit(status[0] if status else f"no process that forks; see {folder}/log")
