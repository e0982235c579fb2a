"""Collections of Milvus: how they are named, made, filled, and published by an alias.

ampere_ampere_3f2a8c01            the alias that is searched
ampere_ampere_3f2a8c01_v000057    the collection of version 57 of the search table
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ampere.records import EMBEDDINGS, VECTOR_COLUMNS
from ampere.retrieval.filters import KINDS, milvus_name
from ampere.retrieval.segments import stacked_vectors
from ampere.retrieval.tuning import EXACT_BELOW

if TYPE_CHECKING:
    from pymilvus import MilvusClient

INSTALL = 'the engine milvus needs its client; run `pip install "ampere[milvus]"`'
TOKEN_VARIABLE = "MILVUS_TOKEN"  # of a server that asks for one, such as user:password
META = "ampere.meta"  # property of a collection: what it was made of, as JSON
BM25_FIELD = "ampere_bm25"
MAX_BYTES = 65_535  # of a text
MAX_ITEMS = 4096  # of a list
ROWS_PER_CALL = 1000
MIN_EF = 128
ALIAS_NOT_FOUND = (100, 1600)  # error codes of milvus-lite, and of a server
INDEX_OPTIONS = {"HNSW": {"M": 32, "efConstruction": 200}}
# Splits Chinese by its dictionary and all else at spaces and punctuation; punctuation is no word.
ANALYZER = {"tokenizer": "jieba", "filter": ["lowercase", "removepunct"]}


def connect(uri: str) -> "MilvusClient":
    """A client of a server (`http://host:19530`), or of a file of milvus-lite (`path/to/x.db`).

    Raises:
        ImportError: pymilvus is not installed.
        ConnectionError: there is no server, or another process has the file open.
    """
    try:
        from pymilvus import MilvusClient
        from pymilvus.exceptions import MilvusException
    except ImportError as error:
        raise ImportError(INSTALL) from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises
    try:
        return MilvusClient(uri, token=os.environ.get(TOKEN_VARIABLE, ""))
    except MilvusException as error:
        hint = "is it running?"
        if is_file(uri):
            hint = "its folder must exist, and one process at a time may have the file open"
        raise ConnectionError(f"cannot open Milvus at {uri}: {error.message}; {hint}") from error


def is_file(uri: str) -> bool:
    """Whether a URI names a file of milvus-lite."""
    return uri.endswith(".db")


def alias_of(name: str) -> str:
    """The alias of a model's collections; Milvus takes ASCII letters, digits and underscores."""
    return "ampere_" + re.sub(r"[^A-Za-z0-9_]", "_", name)


def collection_of(alias: str, version: int) -> str:
    """The name of the collection of a version of the search table."""
    return f"{alias}_v{version:06}"


def version_of(collection: str) -> int:
    """The version of the search table that a collection was made of."""
    return int(collection.rpartition("_v")[2])


def versions(client: "MilvusClient", alias: str) -> list[int]:
    """Versions of the search table that have a collection, oldest first."""
    names = [name for name in client.list_collections() if re.fullmatch(rf"{alias}_v\d+", name)]
    return sorted(map(version_of, names))


def published(client: "MilvusClient", alias: str) -> str | None:
    """The collection that is searched; None: none is."""
    from pymilvus.exceptions import MilvusException

    try:
        return client.describe_alias(alias)["collection_name"]
    except MilvusException as error:
        if error.code in ALIAS_NOT_FOUND:
            return None
        raise


def publish(client: "MilvusClient", alias: str, version: int) -> None:
    """Search the collection of a version from now on.

    Raises:
        ValueError: there is no such collection.
    """
    collection = collection_of(alias, version)
    if version not in (known := versions(client, alias)):
        raise ValueError(f"Milvus has no collection {collection}; there are versions {known}")
    client.load_collection(collection)
    if published(client, alias) is None:
        client.create_alias(collection, alias)
    else:
        client.alter_alias(collection, alias)


def drop(client: "MilvusClient", alias: str, version: int) -> None:
    """Delete the collection of a version, which must not be the published one."""
    client.drop_collection(collection_of(alias, version))


def drop_all(client: "MilvusClient", alias: str) -> None:
    """Delete an alias and its collections."""
    if published(client, alias) is not None:
        client.drop_alias(alias)
    for version in versions(client, alias):
        drop(client, alias, version)


def create(
    client: "MilvusClient", collection: str, schema: pa.Schema, meta: Mapping[str, Any]
) -> None:
    """Make an empty collection, without indexes: it cannot be searched yet; see `add_indexes`.

    Args:
        client: of the server or file.
        collection: its name.
        schema: of the search table.
        meta: what the collection is made of; read it with `meta_of`.

    Raises:
        ValueError: a column has a name that Milvus does not take.
    """
    from pymilvus import DataType, Function, FunctionType

    fields = client.create_schema(auto_id=False, enable_dynamic_field=False)
    for field in schema:
        if field.name in VECTOR_COLUMNS:
            continue
        text = {"datatype": DataType.VARCHAR, "max_length": MAX_BYTES}
        options: dict[str, Any] = {
            "text": text,
            "number": {"datatype": DataType.DOUBLE},
            "true/false": {"datatype": DataType.BOOL},
            "time": {"datatype": DataType.INT64},  # see `milvus_condition`
            "list of texts": {
                "datatype": DataType.ARRAY,
                "element_type": DataType.VARCHAR,
                "max_capacity": MAX_ITEMS,
                "max_length": MAX_BYTES,
            },
        }[KINDS[field.type]]
        if field.name == "sample_id":
            options |= {"is_primary": True}
        else:
            options |= {"nullable": True}
        if field.name == "text":
            options |= {"enable_analyzer": True, "analyzer_params": ANALYZER}
        fields.add_field(milvus_name(field.name), **options)
    dim = schema.field("vector").type.list_size
    fields.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    fields.add_field(BM25_FIELD, DataType.SPARSE_FLOAT_VECTOR)
    bm25 = Function("bm25", FunctionType.BM25, ["text"], [BM25_FIELD])
    fields.add_function(bm25)
    client.create_collection(
        collection,
        schema=fields,
        # A search sees every change that was acknowledged before it.
        consistency_level="Strong",
        properties={META: json.dumps(meta, ensure_ascii=False)},
    )


def index_type_of(index_type: str, rows: int, uri: str) -> str:
    """Milvus's name of an index type.

    `auto` is exact search below a million rows and in a file, else what the server chooses: a
    graph, which may return fewer rows than there are if a filter lets few pass.

    Args:
        index_type: `auto`, `flat` or `hnsw`.
        rows: of the collection.
        uri: of the server or file.
    """
    if index_type != "auto":
        return index_type.upper()
    return "FLAT" if rows < EXACT_BELOW or is_file(uri) else "AUTOINDEX"


def add_indexes(client: "MilvusClient", collection: str, index_type: str) -> None:
    """Index a filled collection by vectors and by words, and load it; return when it is ready.

    Args:
        client: of the server or file.
        collection: its name.
        index_type: Milvus's name of it.
    """
    client.flush(collection)
    indexes = client.prepare_index_params()
    # By inner product: vectors have length 1, and cosine gives wrong scores after a reload of
    # FAISS indexes.
    options = INDEX_OPTIONS.get(index_type, {})
    indexes.add_index("vector", index_type=index_type, metric_type="IP", params=options)
    indexes.add_index(BM25_FIELD, index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    client.create_index(collection, indexes)
    client.load_collection(collection)


def search_options(field: str, limit: int, index_type: str) -> dict[str, Any]:
    """Options of a search for `limit` rows: a graph must look at more."""
    if field == "vector" and index_type == "HNSW":
        return {"params": {"ef": max(MIN_EF, 2 * limit)}}
    return {}


def meta_of(client: "MilvusClient", collection: str) -> dict[str, Any]:
    """What a collection was made of; empty: it was not made by ampere."""
    properties = client.describe_collection(collection).get("properties", {})
    return json.loads(properties.get(META, "{}"))


def count(client: "MilvusClient", collection: str, domain: str = "") -> int:
    """Number of rows of a domain; empty: of all."""
    condition = in_domain(domain) if domain else ""
    (row,) = client.query(collection, filter=condition, output_fields=["count(*)"])
    return row["count(*)"]


def in_domain(domain: str) -> str:
    """The condition that a row is of a domain."""
    return f"domain == {literal(str(domain))}"


def with_ids(ids: Sequence[str]) -> str:
    """The condition that a row has one of some ids; the client's `ids=` does not quote them."""
    return f"sample_id in [{', '.join(map(literal, ids))}]"


def literal(value: Any) -> str:
    """A stored value as an expression of Milvus."""
    return json.dumps(value, ensure_ascii=False)


def delete(client: "MilvusClient", collection: str, ids: Sequence[str]) -> None:
    """Delete rows; ids that there are not are ignored."""
    for start in range(0, len(ids), ROWS_PER_CALL):
        client.delete(collection, filter=with_ids(ids[start : start + ROWS_PER_CALL]))


@dataclass(frozen=True)
class Collection:
    """What a search has to know of a collection.

    Attributes:
        name: of the collection.
        schema: columns of the search table that it holds.
        index_type: Milvus's name of the index of its vectors.
    """

    name: str
    schema: pa.Schema
    index_type: str


def opened(client: "MilvusClient", name: str) -> Collection:
    """What a search has to know of a collection."""
    index_type = client.describe_index(name, "vector")["index_type"]
    return Collection(name, schema_of(client, name), index_type)


def schema_of(client: "MilvusClient", collection: str) -> pa.Schema:
    """The columns of the search table that a collection holds."""
    from pymilvus import DataType

    kinds = {
        DataType.VARCHAR: "text",
        DataType.DOUBLE: "number",
        DataType.BOOL: "true/false",
        DataType.INT64: "time",
        DataType.ARRAY: "list of texts",
    }
    types = {kind: column_type for column_type, kind in KINDS.items()}
    stored = {field["name"]: field for field in client.describe_collection(collection)["fields"]}
    vector = pa.list_(pa.float32(), stored["vector"]["params"]["dim"])
    fields = [
        field.with_type(vector) if field.name in VECTOR_COLUMNS else field
        for field in EMBEDDINGS.schema
    ]
    fields += [
        pa.field(name, types[kinds[field["type"]]])
        for name, field in stored.items()
        if name not in EMBEDDINGS.schema.names and name != BM25_FIELD
    ]
    return pa.schema(fields)


def write(client: "MilvusClient", collection: str, rows: pa.Table) -> None:
    """Upsert rows of the search table."""
    for start in range(0, rows.num_rows, ROWS_PER_CALL):
        client.upsert(collection, list(_records(rows.slice(start, ROWS_PER_CALL))))


def _records(rows: pa.Table) -> Iterator[dict[str, Any]]:
    vectors = stacked_vectors(rows["vector"])
    names = [name for name in rows.column_names if name not in VECTOR_COLUMNS]
    rows = rows.select(names)
    for at, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            rows = rows.set_column(at, field.name, pc.cast(rows[field.name], pa.int64()))
    for record, vector in zip(rows.to_pylist(), vectors, strict=True):
        text = record["text"]
        if text is not None and len(text) > MAX_BYTES // 4:
            record["text"] = text.encode()[:MAX_BYTES].decode(errors="ignore")
        yield record | {"vector": vector}
