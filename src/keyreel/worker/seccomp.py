"""A filter for the system calls of a process (seccomp): those that computing and reading files need.

Any other call answers that it does not exist, and libraries do without it, as they do on an older kernel.
"""

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from struct import pack

CALLS = """
futex 202 98
read 0 63
write 1 64
mmap 9 222
munmap 11 215
madvise 28 233
openat 257 56
close 3 57
newfstatat 262 79
fstat 5 80
lseek 8 62
mprotect 10 226
brk 12 214
mremap 25 216
pread64 17 67
pwrite64 18 68
readv 19 65
writev 20 66
preadv 295 69
pwritev 296 70
open 2 -
stat 4 -
lstat 6 -
statx 332 291
access 21 -
faccessat 269 48
faccessat2 439 439
readlink 89 -
readlinkat 267 78
getcwd 79 17
getdents64 217 61
ftruncate 77 46
fallocate 285 47
fadvise64 221 223
fsync 74 82
fdatasync 75 83
unlink 87 -
unlinkat 263 35
rename 82 -
renameat 264 38
renameat2 316 276
mkdir 83 -
mkdirat 258 34
rmdir 84 -
dup 32 23
dup2 33 -
dup3 292 24
fcntl 72 25
pipe2 293 59
eventfd2 290 19
poll 7 -
ppoll 271 73
select 23 -
pselect6 270 72
epoll_ctl 233 21
epoll_wait 232 -
epoll_pwait 281 22
epoll_pwait2 441 441
recvfrom 45 207
set_robust_list 273 99
rseq 334 293
membarrier 324 283
sched_yield 24 124
sched_getaffinity 204 123
exit 60 93
exit_group 231 94
restart_syscall 219 128
rt_sigaction 13 134
rt_sigprocmask 14 135
rt_sigreturn 15 139
sigaltstack 131 132
clock_gettime 228 113
clock_getres 229 114
clock_nanosleep 230 115
nanosleep 35 101
gettimeofday 96 169
time 201 -
getrandom 318 278
getpid 39 172
gettid 186 178
getppid 110 173
getuid 102 174
geteuid 107 175
getgid 104 176
getegid 108 177
uname 63 160
sysinfo 99 179
getrusage 98 165
times 100 153
getrlimit 97 163
futex_waitv 449 449
kill 62 129
tkill 200 130
tgkill 234 131
prlimit64 302 261
ioctl 16 29
sendto 44 206
clone 56 220
"""
"""A system call in each line: its name, and its numbers on x86-64 and ARM64."""
ARCHITECTURES = {"x86_64": (1, 0xC000003E), "aarch64": (2, 0xC00000B7)}
"""The column of the numbers, and the kernel's own name of the architecture (AUDIT_ARCH)."""
X32 = 0x40000000
"""The least number of the calls by another convention, which would get around the filter."""
CLONE_THREAD = 0x10000
IOCTLS = (0x5401, 0x5421, 0x5450, 0x5451)
"""Ask whether a file is a terminal, do not wait for it, pass it on or not. Others type into the operator's terminal."""

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
MODE_FILTER = 2

LOAD, IF_EQUAL, IF_AT_LEAST, IF_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Where the kernel puts a call's number, its architecture and its arguments: 8 bytes each, the lower half first."""
ALLOW, KILL, MISSING = 0x7FFF0000, 0x80000000, 0x00050000 | errno.ENOSYS

Instruction = tuple[int, int, int, int]
"""Code, operand, and how many instructions to skip if the test holds and if not."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def is_offered() -> bool:
    """Returns whether the kernel has such filters, and its calls are known."""
    known = sys.platform == "linux" and platform.machine() in ARCHITECTURES and sys.maxsize > 2**32
    # A kernel with filters looks for the program, which is missing here.
    return known and _prctl(PR_SET_SECCOMP, MODE_FILTER, None) == errno.EFAULT


def install() -> None:
    """Filters the calls of this thread, and of those that it starts, for good. Raises OSError."""
    instructions = b"".join(pack("HBBI", code, yes, no, operand) for code, operand, yes, no in _instructions())
    program = _Program(len(instructions) // 8, instructions)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, None), (PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program))):
        if code := _prctl(*arguments):
            raise OSError(code, f"The filter for system calls cannot be installed: {os.strerror(code)}")


def _prctl(option: int, value: int, pointer: object) -> int:
    """Returns the error number, or 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0))
    return ctypes.get_errno() if failed else 0


def _instructions() -> Iterator[Instruction]:
    column, architecture = ARCHITECTURES[platform.machine()]
    yield _load(ARCHITECTURE)
    yield IF_EQUAL, architecture, 1, 0
    yield _return(KILL)
    yield _load(NUMBER)
    yield IF_AT_LEAST, X32, 0, 1
    yield _return(KILL)
    conditions = _conditions()
    for line in CALLS.split("\n")[1:-1]:
        fields = line.split()
        if fields[column] != "-":
            then = conditions.get(fields[0], [_return(ALLOW)])
            yield IF_EQUAL, int(fields[column]), 0, len(then)
            yield from then
    yield _return(MISSING)


def _conditions() -> Mapping[str, list[Instruction]]:
    """Returns what decides about calls that are allowed only with certain arguments."""
    own = _if_one_of(0, (os.getpid(),))
    return {
        # Only to itself, as abort() does.
        "kill": own,
        "tkill": own,
        "tgkill": own,
        "clone": _if_bit(0, CLONE_THREAD),
        "ioctl": _if_one_of(1, IOCTLS),
        # Reads limits and does not set them.
        "prlimit64": _if_null(2),
        # With an address, a datagram would go to any socket.
        "sendto": _if_null(4),
    }


def _if_one_of(argument: int, values: tuple[int, ...]) -> list[Instruction]:
    """Compares the lower half, because the upper one of an `int` is arbitrary."""
    tests = [step for value in values for step in ((IF_EQUAL, value, 0, 1), _return(ALLOW))]
    return [_load(ARGUMENTS + 8 * argument), *tests, _return(MISSING)]


def _if_bit(argument: int, bit: int) -> list[Instruction]:
    return [_load(ARGUMENTS + 8 * argument), (IF_BIT, bit, 0, 1), _return(ALLOW), _return(MISSING)]


def _if_null(argument: int) -> list[Instruction]:
    lower = ARGUMENTS + 8 * argument
    return [
        _load(lower),
        (IF_EQUAL, 0, 0, 3),
        _load(lower + 4),
        (IF_EQUAL, 0, 0, 1),
        _return(ALLOW),
        _return(MISSING),
    ]


def _load(offset: int) -> Instruction:
    return LOAD, offset, 0, 0


def _return(verdict: int) -> Instruction:
    return RETURN, verdict, 0, 0
