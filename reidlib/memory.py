"""Memory that torch has freed stays with the process.

glibc hands every large array back to the kernel as soon as it is freed, and the kernel clears its pages anew when the next
one is asked for; a network on a CPU does that for each layer of each step. How much time that takes hangs on the size of the
pictures: little at 128 x 64 with frozen first layers, more than half of a step at 256 x 128. No number is changed by it.
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed() -> bool:
    """Let this process keep what it frees, until it ends. Whether it could be: only glibc is asked, on Linux."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, value) == 1 for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)))
