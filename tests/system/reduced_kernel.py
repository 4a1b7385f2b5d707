"""Runs a program on a kernel that seems to lack a feature.

usage: reduced_kernel.py FEATURE PROGRAM [ARGUMENT...]

FEATURE ipv6: socket(AF_INET6, ...) fails with EAFNOSUPPORT. FEATURE seccomp: seccomp(2) fails with ENOSYS and
prctl(PR_SET_SECCOMP) with EINVAL. Exits 1 with a message if this machine does not allow the filter.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
import sys

AUDIT_ARCH = {
    "x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3, "s390x": 0x80000016, "ppc64le": 0xC0000015,
}
SOCKET_CALL = {"x86_64": 41, "aarch64": 198, "riscv64": 198, "s390x": 359, "ppc64le": 326}
SECCOMP_CALL = {"x86_64": 317, "aarch64": 277, "riscv64": 277, "s390x": 348, "ppc64le": 358}
PRCTL_CALL = {"x86_64": 157, "aarch64": 167, "riscv64": 167, "s390x": 172, "ppc64le": 171}
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER, ARCH, FIRST_ARGUMENT = 0, 4, 16 if sys.byteorder == "little" else 20  # offsets in struct seccomp_data


def without_ipv6(machine):
    return [
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_EQUAL, 0, 3, SOCKET_CALL[machine]),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP_IF_EQUAL, 0, 1, socket.AF_INET6),
        (RETURN, 0, 0, ERRNO | errno.EAFNOSUPPORT),
        (RETURN, 0, 0, ALLOW),
    ]


def without_seccomp(machine):
    return [
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_EQUAL, 4, 0, SECCOMP_CALL[machine]),
        (JUMP_IF_EQUAL, 0, 2, PRCTL_CALL[machine]),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP_IF_EQUAL, 2, 0, PR_SET_SECCOMP),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ERRNO | errno.ENOSYS),
        (RETURN, 0, 0, ERRNO | errno.EINVAL),
    ]


def install(machine, body):
    other_arch = [(LOAD, 0, 0, ARCH), (JUMP_IF_EQUAL, 1, 0, AUDIT_ARCH[machine]), (RETURN, 0, 0, ALLOW)]
    code = other_arch + body
    text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(text)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)):
        if libc.prctl(*arguments) != 0:
            sys.exit("prctl: " + os.strerror(ctypes.get_errno()))


def main(feature, *command):
    machine = platform.machine()
    if machine not in AUDIT_ARCH:
        sys.exit(f"unknown machine {machine}")
    install(machine, {"ipv6": without_ipv6, "seccomp": without_seccomp}[feature](machine))
    os.execvp(command[0], command)


main(*sys.argv[1:])
