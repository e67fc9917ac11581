"""Run one notebook headlessly with papermill: what the Snakefile calls.

    python scripts/execute.py notebooks/02_experts.ipynb made/02/02.ipynb -p study params/demo.yaml -p expert clip

The folder of the executed notebook holds all that it writes, figures and tables among it, and nothing else: what an earlier run
left there goes first, and a folder that holds anything else is refused. The notebook itself appears there once it is whole, and made.json, which says in what
state it was executed. What the notebook prints, its progress bars among it, appears line by line as it runs.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from orphans import when_orphaned
from traitlets.config import Config

from reidlib.provenance import code, now
from reidlib.sources import PROJECT


def emptied(folder: Path, name: str) -> None:
    """Make the folder, without what an earlier run of this notebook left in it. Raises SystemExit where it may be another's."""
    left = any((folder / file).exists() for file in ("made.json", f"{name}.running.ipynb"))
    if folder.is_dir() and any(folder.iterdir()) and not left and PROJECT / "artifacts" not in folder.parents:
        raise SystemExit(
            f"{folder} holds other things, and would be emptied for the executed notebook: name a folder of its own"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


class Lines:
    """A text stream that prints whole lines behind a name, and of a bar that redraws itself one line every few seconds.

    Several notebooks run side by side, so a bar can't redraw itself in place.
    """

    def __init__(self, name: str, every: float = 5.0):
        self.name, self.every, self.text, self.last = name, every, "", 0.0

    def write(self, text: str) -> None:
        self.text += text
        while end := re.search(r"[\r\n]", self.text):
            line, mark, self.text = self.text[: end.start()].strip(), end[0], self.text[end.end() :]
            if line and (mark == "\n" or time.monotonic() - self.last > self.every):
                self.last = time.monotonic()
                print(f"[{self.name}] {line}", flush=True)

    def flush(self) -> None:
        sys.stdout.flush()


def main() -> int:
    # jsonschema's check of links: no notebook needs it, and loading it takes longer than loading all else
    sys.modules["rfc3987_syntax"] = None
    import papermill
    from nbclient.exceptions import DeadKernelError

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("done", type=Path)
    parser.add_argument("--state", default="", help="hash of all that the executed notebook depends on")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters")
    args = parser.parse_args()
    name, start = args.done.stem, time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of what ends the kernel
    when_orphaned(lambda: os.kill(os.getpid(), signal.SIGTERM))
    lines = Lines(name)
    folder = args.done.resolve().parent
    emptied(folder, name)
    os.environ["REIDLIB_OUTPUT"] = str(folder)
    # the kernel of this interpreter, whatever else a user has by the name python3
    os.environ |= {"JUPYTER_PATH": "", "JUPYTER_PREFER_ENV_PATH": "1"}
    attempt = folder / f"{name}.running.ipynb"
    try:
        # sockets in a folder of this kernel's own: with TCP, two kernels that start at once may pick the same port
        with tempfile.TemporaryDirectory() as sockets:
            papermill.execute_notebook(
                *(re.sub("([{}])", r"\1\1", str(path)) for path in (args.notebook, attempt)),  # papermill formats paths
                dict(args.parameters),
                progress_bar=False,
                kernel_name="python3",
                stdout_file=lines,
                stderr_file=lines,
                coalesce_streams=True,
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
            )
    except papermill.PapermillExecutionError as error:
        print(f"[{name}] failed in cell {error.exec_count}: {error.ename}: {error.evalue}", file=sys.stderr)
        print(f"[{name}] the notebook as far as it came: {attempt}", file=sys.stderr)
        return 1
    except DeadKernelError:
        print(f"[{name}] its kernel was killed from outside, most often by the system for want of memory: close what else takes "
              "memory, or make fewer notebooks at once (make study CORES=1), and run it again; finished epochs are kept",
              file=sys.stderr)  # fmt: skip
        return 1
    record = {"state": args.state, "parameters": dict(args.parameters), "finished": now(), "environment": code()}
    (folder / "made.json").write_text(json.dumps(record, indent=1))
    attempt.replace(args.done)
    print(f"[{name}] finished in {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
