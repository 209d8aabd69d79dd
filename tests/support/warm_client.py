"""What `python` is in the folder of warm.py: asks there for a process, and is its stand-in.

python -IS warm_client.py FOLDER PYTHON ARGUMENTS...
"""

import json
import os
import socket
import struct
import sys

folder, python, *arguments = sys.argv[1:]
if len(arguments) < 2 or arguments[0] != "-m" or not arguments[1].startswith("pipelines."):
    os.execv(python, [python, *arguments])

umask = os.umask(0)
os.umask(umask)
asked = json.dumps([arguments[1:], os.getcwd(), dict(os.environ), umask]).encode()
place = os.open(folder, os.O_RDONLY)
with socket.socket(socket.AF_UNIX) as server:
    server.connect(f"/proc/self/fd/{place}/socket")
    socket.send_fds(server, [struct.pack("!I", len(asked))], [0, 1, 2])
    server.sendall(asked)
    status = server.recv(1)
sys.exit(status[0] if status else f"no process that forks; see {folder}/log")
