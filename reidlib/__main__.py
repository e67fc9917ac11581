"""The command line: embed a folder of crops, search in it, export the network, look at a study's state.

    python -m reidlib embed crops/ -o gallery.parquet
    python -m reidlib search gallery.parquet somebody.jpg
    python -m reidlib export -o student.onnx
    python -m reidlib status params/demo.yaml

Results go to stdout, everything else to stderr. `python -m reidlib COMMAND --help` says more.
"""

import argparse
import sys
from pathlib import Path

MANY = ("embeddings", "evaluation")  # kinds of units of which the finished ones are counted, not listed


def main(*options: str) -> int:
    parser = argparse.ArgumentParser(
        "python -m reidlib", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, says, example):
        added = commands.add_parser(name, help=says, description=f"{says}\n\n    {example}",
                                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        added.set_defaults(run=run)
        return added

    def network(added):
        added.add_argument("--network", type=Path, metavar="FILE", help="a .safetensors of results/<study>/weights/, or an .onnx; "
                           "by default the one that comes with this project")  # fmt: skip

    added = command("embed", embed, "A table of embeddings of all pictures in folders.",
                    "python -m reidlib embed crops/ -o gallery.parquet")  # fmt: skip
    added.add_argument("places", nargs="+", metavar="FOLDER", help="folders of crops, or single pictures")
    added.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.parquet")
    network(added)
    added = command("search", search, "Who in a gallery looks most like somebody: query, rank, similarity, path.",
                    "python -m reidlib search gallery.parquet somebody.jpg --top 5")  # fmt: skip
    added.add_argument("gallery", type=Path, help="a table that `embed` wrote")
    added.add_argument("places", nargs="+", metavar="CROP", help="pictures to look for, or folders of them")
    added.add_argument("--top", type=int, default=10, help="how many answers to each (default: 10)")
    network(added)
    added = command("export", export, "The network as one ONNX file: uint8 pictures of any size in, unit vectors out.",
                    "python -m reidlib export -o student-int8.onnx --int8 crops/")  # fmt: skip
    added.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.onnx")
    added.add_argument("--int8", metavar="FOLDER", help="in int8, calibrated on the crops in a folder like those to come")
    network(added)
    added = command("status", status, "What of a study is finished, half done, missing or stale, and why.",
                    "python -m reidlib status params/demo.yaml")  # fmt: skip
    added.add_argument("study", help="a params file")
    args = parser.parse_args(options)
    try:
        return args.run(args)
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # the library's own are all of these
        print(f"reidlib: {error}", file=sys.stderr)
        return 1


def embed(args) -> int:
    from reidlib import deploy, folders  # here: torch takes seconds, and --help should not

    files = folders.pictures(args.places)
    _writable(args.output)
    table = folders.embed_pictures(deploy.open_network(args.network), files)
    folders.write_table(table, args.output)
    print(f"{args.output}: {len(table)} embeddings of {len(table['embedding'][0])} numbers", file=sys.stderr)
    return 0


def search(args) -> int:
    from reidlib import deploy, folders

    gallery = folders.read_table(args.gallery)
    queries = folders.embed_pictures(deploy.open_network(args.network), folders.pictures(args.places))
    of, by = (table.attrs.get("network") for table in (gallery, queries))
    if of != by:
        print(f"{args.gallery} was embedded by {of or 'an unknown network'}, the pictures now by {by}: unless one is an export of the "
              "other, similarities mean nothing (--network names one)", file=sys.stderr)  # fmt: skip
    print(folders.search(gallery, queries, args.top).to_csv(sep="\t", index=False, float_format="%.4f"), end="")
    return 0


def export(args) -> int:
    import tempfile

    from reidlib import deploy, folders

    _writable(args.output)
    model = deploy.open_network(args.network)
    exported = isinstance(model, deploy.OnnxNetwork)
    if exported and not args.int8:
        raise ValueError(f"{args.network} is exported already; with --int8 FOLDER one in 8 bits is made of it")
    if not args.int8:
        deploy.export(model, args.output)
    else:
        files = folders.pictures([args.int8])
        some = files[:: -(-len(files) // deploy.CALIBRATION)]
        pixels = folders.read_pictures(some, deploy.picture_size(model))
        with tempfile.TemporaryDirectory() as folder:
            ready = args.network if exported else deploy.export(model, Path(folder) / "float.onnx")
            deploy.quantize(ready, args.output, pixels)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    return 0


def status(args) -> int:
    from reidlib.study import open_study
    from reidlib.units import FINISHED

    study = open_study(args.study)
    units, planned = study.state(), study.plan.units()
    for unit in units.itertuples():
        if unit.kind not in MANY or unit.state != FINISHED:
            why = unit.why or far(study.store.folder(planned[unit.unit]))
            print(f"{unit.state:10} {unit.unit}" + f"  ({why})" * bool(why))
    for kind in MANY:
        done = units[(units["kind"] == kind) & (units["state"] == FINISHED)]
        print(f"{FINISHED:10} {len(done)} of {(units['kind'] == kind).sum()} units of the kind {kind}")
    counts = units["state"].value_counts()
    print(f"{study.name}: {', '.join(f'{count} {state}' for state, count in counts.items())}")
    return 0


def far(folder: Path) -> str:
    """How far a training is that is half done; "" where none is."""
    if not (folder / "history.csv").exists() or (folder / "unit.json").exists():
        return ""
    *_, last = (folder / "history.csv").read_text().split()
    epoch, loss = last.split(",")[:2]
    return f"epoch {epoch} is done, loss {float(loss):.3f}"


def _writable(file: Path) -> None:
    """Refuse a file that can't be written before the work that it is to hold. Raises ValueError."""
    if not file.parent.is_dir():
        raise ValueError(f"{file}: there is no folder {file.parent}; make it, or name another")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
