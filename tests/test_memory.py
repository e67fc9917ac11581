"""Memory that is freed stays with the process."""

import platform
import subprocess
import sys

import pytest

FREED = """
import sys, psutil, torch
from reidlib import memory
if sys.argv[1] == "kept":
    assert memory.keep_freed()
x = torch.ones(64 << 20)
full = psutil.Process().memory_info().rss
del x
print((full - psutil.Process().memory_info().rss) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked")
@pytest.mark.parametrize("how, least, most", [("kept", -1, 16), ("returned", 240, 300)])
def test_a_large_array_stays_with_the_process(how, least, most):
    done = subprocess.run([sys.executable, "-c", FREED, how], capture_output=True, text=True, check=True)
    assert least <= int(done.stdout) <= most  # MB of 256 that the kernel has back


def test_another_c_library_is_left_alone(monkeypatch):
    from reidlib import memory

    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    assert memory.keep_freed() is False
