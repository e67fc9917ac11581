"""A gallery in a vector database, for where one machine is too small: the tables of `python -m reidlib embed`, in Qdrant.

    .venv/bin/pip install --editable '.[qdrant]'
    .venv/bin/python -m reidlib embed crops/ -o gallery.parquet
    .venv/bin/python -m reidlib embed somebody_c3.jpg -o query.parquet
    .venv/bin/python examples/vector_database.py gallery.parquet query.parquet --camera '_c(\\d+)'

Without --url the database runs inside this process, which is for trying only. `--camera` says where a file's name has its
camera; pictures of the query's own are then no answers, and that is decided in the database, before it searches.
"""

import argparse
import sys

import numpy as np
import pandas as pd
from qdrant_client import QdrantClient, models

from reidlib.folders import read_table

BATCH = 250  # pictures sent at once: some 7 MB of JSON where an embedding has 1280 numbers


def fill(client: QdrantClient, table: pd.DataFrame, name: str = "crops") -> None:
    """A collection of a table: column embedding (unit vectors), all other columns beside it. One by its name is replaced."""
    width = len(table["embedding"].iloc[0])
    if client.collection_exists(name):
        client.delete_collection(name)
    client.create_collection(name, models.VectorParams(size=width, distance=models.Distance.COSINE))
    client.create_payload_index(name, "camid", models.PayloadSchemaType.INTEGER)  # else a filter looks at all payloads
    for start in range(0, len(table), BATCH):
        part = table.iloc[start : start + BATCH]
        payload = part.drop(columns="embedding").to_dict("records")
        client.upsert(name, models.Batch(ids=[*range(start, start + len(part))], vectors=np.stack(part["embedding"]).tolist(),
                                         payloads=payload))  # fmt: skip


def nearest(client: QdrantClient, queries: pd.DataFrame, top: int = 10, name: str = "crops") -> pd.DataFrame:
    """The `top` nearest pictures to each query: columns query, rank, similarity, path. Where queries have a column camid, only
    pictures of other cameras are answers."""
    rows = []
    for query in queries.itertuples():
        own = models.FieldCondition(key="camid", match=models.MatchValue(value=getattr(query, "camid", -1)))
        asked = query.embedding.tolist()
        found = client.query_points(name, asked, query_filter=models.Filter(must_not=[own]), limit=top).points
        rows += [(query.path, rank, point.score, point.payload["path"]) for rank, point in enumerate(found, 1)]
    return pd.DataFrame(rows, columns=["query", "rank", "similarity", "path"])


def with_camera(table: pd.DataFrame, pattern: str) -> pd.DataFrame:
    """The table with a column camid, int: what the first group of `pattern` matches in the path. Raises ValueError where one
    has none."""
    camid = table["path"].str.extract(pattern)[0]
    if camid.isna().any():
        raise ValueError(f"{table['path'][camid.isna()].iloc[0]}: --camera '{pattern}' matches nothing of it")
    return table.assign(camid=camid.astype(int))


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gallery", help="a table of `python -m reidlib embed`")
    parser.add_argument("queries", help="another one, of the pictures to look for")
    parser.add_argument("--url", help="of a running Qdrant, such as http://localhost:6333")
    parser.add_argument("--camera", metavar="REGEX", help="where a path has its camera's number, in parentheses")
    parser.add_argument("--top", type=int, default=10)
    args = parser.parse_args(arguments)
    gallery, queries = (read_table(file) for file in (args.gallery, args.queries))
    if args.camera:
        gallery, queries = (with_camera(table, args.camera) for table in (gallery, queries))
    client = QdrantClient(url=args.url) if args.url else QdrantClient(":memory:")
    fill(client, gallery)
    nearest(client, queries, args.top).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
