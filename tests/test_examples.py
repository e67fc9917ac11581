"""The examples beside the library, on small tables."""

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from qdrant_client import QdrantClient

from reidlib import folders
from reidlib.gallery import Gallery

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import vector_database as database  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")  # inside a process, as here


@pytest.fixture
def table() -> pd.DataFrame:
    vectors = np.random.default_rng(0).normal(size=(2500, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    paths = [f"/crops/{i:04}_c{i % 6}.jpg" for i in range(len(vectors))]
    return pd.DataFrame({"path": paths, "embedding": list(vectors)})


def test_the_database_finds_what_this_projects_gallery_finds(table):
    table = database.with_camera(table, r"_c(\d)\.")
    queries, client = table.iloc[:5], QdrantClient(":memory:")
    database.fill(client, table.iloc[:100])
    database.fill(client, table.iloc[5:])  # takes its place
    found, gallery = database.nearest(client, queries, top=7), Gallery.build(table.iloc[5:])
    for query in queries.itertuples():
        expected = gallery.search(query.embedding[None], top=7, where=f"camid != {query.camid}")
        own = found[found["query"] == query.path]
        assert own["path"].tolist() == expected["path"].tolist() and own["rank"].tolist() == list(range(1, 8))
        assert own["similarity"].to_numpy() == pytest.approx(expected["similarity"].to_numpy(), abs=1e-5)
    assert not any(path.endswith(query[-6:]) for query, path in zip(found["query"], found["path"]))


def test_from_tables_by_the_command_line(table, tmp_path, capsys):
    files = [tmp_path / "gallery.parquet", tmp_path / "queries.parquet"]
    for part, file in zip((table.iloc[5:], table.iloc[:2]), files):
        folders.write_table(part, file)
    database.main(*map(str, files), "--top", "3")
    alone = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert len(alone) == 6 and alone["similarity"].between(0.3, 1).all()
    database.main(*map(str, files), "--top", "3", "--camera", r"_c(\d)")
    across = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert all(query[-6:] != path[-6:] for query, path in zip(across["query"], across["path"]))
    with pytest.raises(ValueError, match="0005_c5.jpg: --camera .*x.* matches nothing"):
        database.main(*map(str, files), "--camera", "(x)")
