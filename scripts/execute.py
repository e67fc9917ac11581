"""Run one notebook headlessly with papermill: what the Snakefile calls.

    python scripts/execute.py notebooks/02_experts.ipynb DONE.ipynb COPIES -p study params/demo.yaml -p expert clip

The executed notebook goes to DONE.ipynb, also when a cell fails, and once it is whole to the folder COPIES as well.
What the notebook prints, its progress bars among it, appears line by line as it runs.
"""

import argparse
import base64
import io
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import papermill
from PIL import Image
from traitlets.config import Config

from reidlib.params import load


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("done", type=Path)
    parser.add_argument("copies", type=Path)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters")
    args = parser.parse_args()
    name, start = args.done.stem, time.monotonic()
    lines = Lines(name)
    args.done.parent.mkdir(parents=True, exist_ok=True)
    attempt = args.done.with_name(f"{name}.running.ipynb")
    try:
        # sockets in a folder of this kernel's own: with TCP, two kernels that start at once may pick the same port
        with tempfile.TemporaryDirectory() as sockets:
            papermill.execute_notebook(
                str(args.notebook),
                str(attempt),
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
    attempt.replace(args.done)
    args.copies.mkdir(parents=True, exist_ok=True)
    _copy(args.done, args.copies / args.done.name, load(dict(args.parameters)["study"]).publish_images)
    print(f"[{name}] finished in {time.monotonic() - start:.0f} s", flush=True)
    return 0


def _copy(done: Path, copy: Path, publish_images: bool) -> None:
    """The executed notebook for results/: its pictures in 256 colours, a third of the bytes, or, where the data's terms
    forbid to publish them, left out."""
    notebook = nbformat.read(done, as_version=4)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        if "image/png" not in output.get("data", ()):
            continue
        if not publish_images:
            del output["data"]["image/png"]
            continue
        image, buffer = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))), io.BytesIO()
        if image.mode == "P":  # a figure's file, which has them already
            continue
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        output["data"]["image/png"] = base64.b64encode(buffer.getvalue()).decode()
    nbformat.write(notebook, copy)


if __name__ == "__main__":
    sys.exit(main())
