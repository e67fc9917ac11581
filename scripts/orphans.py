"""What a process does when the one that started it is gone, however it went: nothing else tells it of a kill -9."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

PATIENCE = 10  # seconds for processes that were asked to end


def when_orphaned(do: Callable[[], None], every: float = 0.5) -> None:
    """do() once this process's parent has ended, in a thread; returns at once."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        do()

    threading.Thread(target=watch, daemon=True).start()


def end_group(group: int) -> None:
    """Ask all processes of a group to end, and kill those that have not after a while, in a thread; returns at once."""
    signal_group(group, signal.SIGTERM)
    timer = threading.Timer(PATIENCE, signal_group, (group, signal.SIGKILL))
    timer.daemon = True
    timer.start()


def signal_group(group: int, number: int) -> None:
    """A signal to all processes of a group, where there are any."""
    with suppress(ProcessLookupError, PermissionError):  # the latter, on macOS, of what has ended and not been waited for
        os.killpg(group, number)
