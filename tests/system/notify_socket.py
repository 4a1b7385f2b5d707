"""The service manager's side of sd_notify: prints each line that is sent to the socket PATH, after `listening`.

usage: notify_socket.py [--pid] PATH

With --pid each line begins with the id of the process that sent it.
"""

import socket
import struct
import sys

UCRED = struct.Struct("3i")


def main(path, with_pid):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.bind(path)
        print("listening", flush=True)
        while True:
            data, ancillary, _, _ = manager.recvmsg(65536, socket.CMSG_SPACE(UCRED.size))
            prefix = f"{UCRED.unpack(ancillary[0][2])[0]} " if with_pid else ""
            for line in data.decode().splitlines():
                print(prefix + line, flush=True)


main(sys.argv[-1], sys.argv[1] == "--pid")
