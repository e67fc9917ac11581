"""Run a study to its end: what `make study` does. One run of a study at a time, and nothing of it goes on behind one's back.

    python scripts/study.py demo --cores 2          what stands after the study is for Snakemake

However a run ends (Ctrl-C, a closed terminal, kill, kill -9 of any of its processes), all of it ends within seconds, and the
next one carries on from the last finished epoch of each unit.
"""

import argparse
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from orphans import PATIENCE, end_group, signal_group, when_orphaned


def main(study: str, *options: str) -> int:
    folder = Path("artifacts") / study
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "running.lock", "a+") as lock:
        if not taken(lock):
            lock.seek(0)
            print(f"{study} is being run by {lock.read()}: waiting some seconds for it to end", file=sys.stderr)
            limit = time.monotonic() + PATIENCE + 5
            while not taken(lock):
                if time.monotonic() > limit:
                    print(f"{study} is still being run: wait until it is finished, or stop it there", file=sys.stderr)
                    return 1
                time.sleep(0.2)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        return run(study, options, lock)


def taken(lock: TextIO) -> bool:
    """Whether the lock is now this process's; the system lets go of it when those that have it open have ended."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def run(study: str, options: tuple[str, ...], lock: TextIO) -> int:
    # --nolock: Snakemake's own lock outlives a Snakemake that was killed. --keep-going: what doesn't need a notebook that
    # failed is made all the same.
    command = [sys.executable, "-m", "snakemake", "--nolock", "--keep-going", "--quiet", "rules", *options]
    started = subprocess.Popen(
        [*command, "--config", f"study={study}"],
        stdin=subprocess.DEVNULL,
        env=os.environ | {"REIDLIB_RUN_BY": str(os.getpid())},  # whose end the Snakefile looks out for
        pass_fds=[lock.fileno()],  # held until Snakemake has ended too, and with it what it runs
        process_group=0,
    )
    asked = threading.Event()

    def stop(*_) -> None:
        if not asked.is_set():
            asked.set()
            end_group(started.pid)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    if "MAKELEVEL" in os.environ:  # whoever kills make means all of it
        when_orphaned(stop)
    code = started.wait()
    if asked.is_set() or code < 0:
        signal_group(started.pid, signal.SIGKILL)  # notebooks of a Snakemake that was killed; their kernels end with them
        print(f"{study} was stopped. Run it again: it carries on from the last finished epoch.", file=sys.stderr)
        return 130
    if code:
        print(f"{study} is not finished; what failed is said above. What was published is as it was.", file=sys.stderr)
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("study", help="its name; what stands after it is for Snakemake")
    args, options = parser.parse_known_args()
    sys.exit(main(args.study, *options))
