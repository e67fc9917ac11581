"""The layout "csv": pictures anywhere below a folder, and a table that says what each is."""

import csv
import io
import os
from collections import Counter
from pathlib import Path

import pandas as pd

from reidlib.data.dataset import DISTRACTOR, SPLITS, DataError, Dataset, first_five

COLUMNS = ("path", "pid", "camid", "split")


def read_csv(root: Path, table: str | Path | None = None) -> Dataset:
    """A data set from a CSV file with the columns path, pid, camid, split; further columns are kept, as text.

    root: the folder that `path` is relative to; without `table` also a .csv file itself, whose paths are then relative to
    its folder. table: the CSV file, by its path from `root` or from the working directory; None: the only one in `root`.

    split is train, query or gallery; a picture in query and in gallery has two rows. pid and camid are whole numbers,
    pid -1 is junk. There is no distractor here: where a table has an identity 0, all identities become one higher.
    Raises DataError where there is no such table; what is wrong in it is left in the Dataset's `problems`.
    """
    root, table = _find(root, table)
    rows, wrong = _rows(table)
    if missing := [column for column in COLUMNS if column not in rows]:
        raise DataError(
            f"{table} has no column {', '.join(missing)}; it has {', '.join(rows.columns) or 'none'}. A table of "
            f"pictures needs a first line with {','.join(COLUMNS)}."
        )
    notes, problems = [], []
    if wrong:
        what = "rows have more fields than the header or reach over several lines (a quote too many?)"
        problems.append(f"{len(wrong)} {what}: {first_five(wrong)}")
    rows = rows.assign(**{column: rows[column].str.strip() for column in COLUMNS})

    def drop(is_wrong: pd.Series, column: str, what: str) -> None:
        nonlocal rows
        if is_wrong.any():
            named = [f"line {line} {value!r}" for line, value in rows.loc[is_wrong, column].items()]
            problems.append(f"{len(named)} {what}: {first_five(named)}")
            rows = rows[~is_wrong]

    drop(rows["path"] == "", "path", "rows have no path")
    drop(~rows["split"].isin(SPLITS), "split", f"rows have a split that is none of {', '.join(SPLITS)}")
    for column in ("pid", "camid"):
        # 3.0 is what tools write for 3 where a column has gaps; more digits would not fit into 64 bits
        is_whole = rows[column].str.fullmatch(r"[+-]?[0-9]{1,18}(\.0*)?")
        drop(~is_whole, column, f"rows have a {column} that is no whole number")
        rows = rows.assign(**{column: rows[column].str.split(".").str[0].astype(int)})
    rows = rows.assign(path=[os.path.normpath(path) for path in rows["path"]])
    drop(rows.duplicated(["path", "split"]), "path", "rows have a picture that stands in the same split before")
    remedy = f"To mend it, edit {table} or fetch the missing files."
    if (rows["pid"] == DISTRACTOR).any():
        rows = rows.assign(pid=rows["pid"].where(rows["pid"] < 0, rows["pid"] + 1))
        notes.append(f"identity 0 is a real one here: identities are numbered one higher than in {table.name}")
        remedy += " Identities above are numbered one higher than in it, for it has an identity 0."
    frames = {split: rows[rows["split"] == split].drop(columns="split").reset_index(drop=True) for split in SPLITS}
    return Dataset(table.stem, root, **frames, notes=notes, problems=problems, remedy=remedy)


def _rows(table: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows by their line in the file, whose first is the header, all as text; and which lines hold no row.

    Read with the csv module: pandas drops what stands beyond the header's columns, and a quote too many hides rows.
    """
    try:
        text = io.StringIO(table.read_bytes().decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is no text in UTF-8: {error}. Mend it or write it again.") from error
    reader, rows, wrong = csv.reader(text, strict=True), {}, []
    try:
        header = next(reader, [])
        last = reader.line_num
        for fields in reader:
            line, last = last + 1, reader.line_num
            if last > line or any(fields[len(header) :]):  # a comma at the end of each row does no harm
                wrong.append(f"line {line}")
            elif any(field.strip() for field in fields):
                rows[line] = [*fields, *[""] * len(header)][: len(header)]
    except csv.Error as error:
        raise DataError(f"{table} is no readable CSV file: {error} in line {reader.line_num}. Mend it.") from error
    named = [name for name in header if name]
    if twice := [name for name, count in Counter(named).items() if count > 1]:
        raise DataError(f"{table} has several columns {first_five(twice)}; rename all but one")
    return pd.DataFrame.from_dict(rows, "index", columns=header, dtype=object)[named], wrong


def _find(root: Path, table: str | Path | None) -> tuple[Path, Path]:
    """The folder of the pictures, and the table."""
    if table is None and root.is_file():
        return root.parent, root
    if not root.is_dir():
        raise DataError(f"A data set by a CSV file needs the folder of its pictures, but {root} is none")
    if table is not None:
        table = Path(os.path.expanduser(table))
        found = [file for file in (root / table, table.absolute()) if file.is_file()]
        if not found:
            raise DataError(f"The table {table} was not found, neither in {root} nor in {Path.cwd()}; give its path")
        return root, found[0]
    found = sorted(file for file in root.glob("*.csv") if not file.name.startswith("."))
    if len(found) == 1 and not found[0].is_file():  # a pipe would be waited for
        raise DataError(f"{found[0]} is no file, nor a link to one; mend it, or name another with `table`")
    if len(found) != 1:
        names = f"{len(found)} CSV files ({first_five([file.name for file in found])})" if found else "no CSV file"
        raise DataError(f"{root} holds {names}; name one with `table`, or give its path as root")
    return root, found[0]
