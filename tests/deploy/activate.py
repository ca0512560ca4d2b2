"""Starts a broker as socket activation does: `python -m tests.deploy.activate SOCKET FLAGS...`.

Listens on a Unix socket (and leaves its file there), makes that the first descriptor which is passed, and becomes
the broker.
"""

import os
import socket
import sys

from chervil.systemd import FIRST_DESCRIPTOR

if __name__ == "__main__":
    path, *flags = sys.argv[1:]
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    # It may be that descriptor already, and a copy onto itself would change nothing.
    os.dup2(listening.fileno(), FIRST_DESCRIPTOR)
    os.set_inheritable(FIRST_DESCRIPTOR, True)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    os.execv(sys.executable, [sys.executable, "-m", "chervil_broker", *flags])
