"""A collection of an index's embeddings on a Qdrant server or cluster: reaching it, and making it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from .errors import VideoIndexError
from .row_codec import RowShape

TIMEOUT = 30
"""Seconds that the server has for an answer."""

_PORT = 6333
_KEY = "QDRANT_API_KEY"


@dataclass(frozen=True)
class QdrantServer:
    """
    Where an index's embeddings are. The key to it is in the environment, in `QDRANT_API_KEY`, and is kept nowhere.

    Args:
        url: of a server, or of any node of a cluster; gRPC is spoken with the port after its own.
        collection: on it, of this index alone.
    """

    url: str
    collection: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise VideoIndexError(
                f"{self.url} is no address of a Qdrant server: give one like http://localhost:{_PORT}, "
                f"and the key, if it needs one, in the environment variable {_KEY}."
            )

    @contextmanager
    def client(self) -> Iterator[Any]:
        """
        A `qdrant_client.QdrantClient`.

        Raises:
            VideoIndexError: the package is not there, or from the block: the server does not answer, or refuses.
        """
        client = self._client
        from grpc import RpcError
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        try:
            yield client
        except (ApiException, QdrantException, RpcError) as error:
            raise VideoIndexError(f"The Qdrant server {self.url} {_complaint(error)}") from error

    @cached_property
    def _client(self) -> Any:
        return connect(self.url)

    def create(self, shape: RowShape, shard_number: int, replication_factor: int) -> None:
        """
        Makes the collection: on all nodes of a cluster, in so many shards, each so many times.

        Raises:
            VideoIndexError: there is one of this name already, or the server does not answer.
        """
        with self.client() as client:
            if client.collection_exists(self.collection):
                raise VideoIndexError(
                    f"There is a collection {self.collection} on {self.url} already: choose another name."
                )
            client.create_collection(
                self.collection,
                vectors_config=_vectors(shape),
                shard_number=shard_number,
                replication_factor=replication_factor,
                on_disk_payload=True,
            )


def connect(url: str) -> Any:
    """
    A client of a server; nothing is sent yet.

    Raises:
        VideoIndexError: the package is not there.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise VideoIndexError(
            'This index is on a Qdrant server, which takes the package qdrant-client: pip install "hcmi[qdrant]".'
        ) from error
    return QdrantClient(
        url,
        api_key=os.environ.get(_KEY),
        prefer_grpc=True,  # vectors as text would take four times the bytes
        grpc_port=(urlsplit(url).port or _PORT) + 1,
        timeout=TIMEOUT,
        check_compatibility=False,
    )


def _vectors(shape: RowShape) -> dict[str, Any]:
    from qdrant_client import models

    multiple = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    # Qdrant's int8 is a copy beside the vectors, by which it searches from memory.
    kind = models.Datatype.FLOAT32 if shape.precision == "float32" else models.Datatype.FLOAT16
    scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    searched: dict[str, Any] = {"size": shape.width, "datatype": kind, "on_disk": True}
    if shape.precision == "int8":
        searched["quantization_config"] = models.ScalarQuantization(scalar=scalar)
    # Clips are only compared with where the video vectors have led, frames not at all: neither needs a graph. A product
    # leaves the phrases' weights in the query, which a cosine would take out of it.
    product: dict[str, Any] = {"distance": models.Distance.DOT, "hnsw_config": models.HnswConfigDiff(m=0)}
    return {
        "video": models.VectorParams(distance=models.Distance.COSINE, **searched),
        "clips": models.VectorParams(multivector_config=multiple, **product, **searched),
        "frames": models.VectorParams(
            size=shape.width, datatype=kind, on_disk=True, multivector_config=multiple, **product
        ),
    }


def _complaint(error: Any) -> str:
    """What is wrong, in one sentence, and the way out."""
    code = error.code() if hasattr(error, "code") else None
    status = getattr(error, "status_code", None)
    details = error.details() if hasattr(error, "details") else str(error)
    if status in (401, 403) or (code is not None and code.name in ("UNAUTHENTICATED", "PERMISSION_DENIED")):
        return f"wants another key: set the environment variable {_KEY}."
    if status is not None or (code is not None and code.name not in ("UNAVAILABLE", "DEADLINE_EXCEEDED")):
        return f"refuses: {details}"
    return f"does not answer within {TIMEOUT} s: start it, or see whether the address is right. ({details})"
