"""Runs a program, sys.argv[1:], where the kernel seems to have no filters of system calls."""

import ctypes
import os
import struct
import sys

NUMBERS = {"x86_64": (317, 157), "aarch64": (277, 167), "riscv64": (277, 167), "s390x": (348, 172), "ppc64le": (358, 171)}
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO_EINVAL, ERRNO_ENOSYS = 0x7FFF0000, 0x00050000 | 22, 0x00050000 | 38
NUMBER, FIRST_ARGUMENT = 0, 16 if sys.byteorder == "little" else 20


def main():
    if os.uname().machine not in NUMBERS:
        sys.exit("unknown architecture")
    seccomp, prctl = NUMBERS[os.uname().machine]
    program = [
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 4, 0, seccomp),
        (EQUAL, 0, 2, prctl),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (EQUAL, 2, 0, PR_SET_SECCOMP),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ERRNO_ENOSYS),
        (RETURN, 0, 0, ERRNO_EINVAL),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    filters = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filters, 0, 0)):
        if libc.prctl(*arguments) != 0:
            sys.exit(os.strerror(ctypes.get_errno()))
    os.execv(sys.argv[1], sys.argv[1:])


main()
