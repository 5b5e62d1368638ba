"""An index of videos on disk: made once, added to, and searched by text or by an example."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hcmi.modeling_hcmi import HCMIModel, HCMITextFeatures
from hcmi.processing import HCMIProcessor

from .catalog import Catalog
from .errors import VideoIndexError
from .model_identity import fingerprint, is_same
from .qdrant_server import QdrantServer
from .queries import encode_example, encode_text
from .row_codec import RowShape
from .search import SearchDepth, SearchResult, search_store
from .stored_index import MAX_ATTEMPTS, StoredIndex, lock_for_writing

if TYPE_CHECKING:
    from hcmi.retrieval.indexing.index_videos import IndexReport


class VideoIndex(StoredIndex):
    """
    Videos that are found by text: an index with the model that encodes videos and queries.

    Made by `create` and `open`; a context manager.

    Example:
        ```python
        from hcmi.retrieval import VideoIndex

        with VideoIndex.create("my_index", "path/to/model") as index:
            index.add(["my_videos/"])
            for hit in index.search("a dog jumps into a pool").hits:
                print(hit.video, hit.start, hit.end, hit.score)
        ```
    """

    def __init__(self, path: str | os.PathLike, model: Any, processor: Any, device: Any, write: bool):
        super().__init__(path, write)
        self._model: HCMIModel | None = model
        self._processor, self._device = processor, device
        if model is not None:
            try:
                self._check(model)
            except VideoIndexError:
                self.close()
                raise

    @classmethod
    def create(
        cls,
        path: str | os.PathLike,
        model: str | os.PathLike | HCMIModel,
        processor: Any = None,
        *,
        precision: str = "int8",
        relative: bool = False,
        url: str | None = None,
        collection: str | None = None,
        shard_number: int = 1,
        replication_factor: int = 1,
        device: Any = None,
    ) -> "VideoIndex":
        """
        Makes an empty index, open for writing.

        Args:
            path: of a folder; it is made if it is not there.
            model: a model's folder or its name on the Hub; or the model itself, and its `processor`.
            precision: `"int8"` (about 9.5 KB a window of 12 frames and 512 dimensions), `"float16"` or `"float32"`.
            relative: note where videos and model lie from the index's folder on, so that all can be moved together.
            url: of a Qdrant server or cluster that is to keep the embeddings; the folder keeps the rest. Its key, if it
                needs one, is in the environment variable QDRANT_API_KEY whenever the index is used.
            collection: on that server; default: the folder's name.
            shard_number, replication_factor: into how many parts a cluster divides it, and how often it keeps each.
            device: of the model.

        Raises:
            VideoIndexError: there is an index already, or somebody is just making one, or the server does not answer,
                or has such a collection.
            ValueError: an unknown precision, a model without a processor, or a `collection` without a `url`.
        """
        if collection is not None and url is None:
            raise ValueError("A `collection` is one of a Qdrant server: pass its `url`, too.")
        model, processor, name = _loaded(model, processor, device)
        frames = processor.frames_per_video
        clips = model.video_hierarchy.count_groups(frames)
        shape = RowShape(model.config.projection_dim, frames, clips, precision)
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        with lock_for_writing(folder):
            if Catalog.location(folder).exists():
                raise VideoIndexError(f"There is an index in {folder} already: open it, or choose another folder.")
            if relative and os.path.isabs(name):
                name = os.path.relpath(name, folder.absolute())
            facts = {
                "model": name,
                "fingerprint": fingerprint(model),
                "level_weights": dict(model.config.inference_weights),
                "shape": asdict(shape),
                "relative": relative,
            }
            if url is not None:
                server = QdrantServer(url, collection or folder.resolve().name)
                server.create(shape, shard_number, replication_factor)
                facts["server"] = asdict(server)
            Catalog.create(folder, facts).close()
        return cls(folder, model, processor, device, write=True)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike,
        *,
        model: str | os.PathLike | HCMIModel | None = None,
        processor: Any = None,
        device: Any = None,
        write: bool = False,
    ) -> "VideoIndex":
        """
        Opens an index.

        Args:
            path: of its folder.
            model, processor: as for `create`; by default the model that the index was made with, which is loaded when
                it is first needed.
            device: of the model.
            write: to add and delete, too.

        Raises:
            VideoIndexError: there is no index, or a damaged one, another process is writing to it, or it was made
                with another model.
        """
        if model is not None:
            model, processor, _ = _loaded(model, processor, device)
        return cls(path, model, processor, device, write)

    @property
    def model(self) -> HCMIModel:
        """The model, in evaluation mode."""
        self._load()
        return self._model

    @property
    def processor(self) -> HCMIProcessor:
        """The model's processor."""
        self._load()
        return self._processor

    def search(
        self,
        query: str | None = None,
        *,
        video: Any = None,
        top_k: int = 5,
        depth: SearchDepth | None = None,
        exact: bool = False,
    ) -> SearchResult:
        """
        Finds the videos that a text describes, or that are like an example.

        Args:
            query: a text; or
            video: instead, anything that `HCMIProcessor` takes as a video.
            top_k: how many videos, at most.
            depth: how many windows each stage leaves to the next.
            exact: score all windows instead.

        Raises:
            ValueError: no query, an empty one, both kinds, or an impossible number.
            VideoReadError: the example cannot be read.
            VideoIndexError: the index is damaged.
        """
        if (query is None) == (video is None):
            raise ValueError("Search for a text or for a video: one of `query` and `video`.")
        encode, what = (encode_text, query) if video is None else (encode_example, video)
        return self.search_features(encode(self.model, self.processor, what), top_k=top_k, depth=depth, exact=exact)

    def search_features(
        self, text: HCMITextFeatures, *, top_k: int = 5, depth: SearchDepth | None = None, exact: bool = False
    ) -> SearchResult:
        """The same for the features of one text, on the CPU."""
        if not isinstance(top_k, int) or top_k < 1:
            raise ValueError(f"`top_k` has to be an integer from 1 on, got {top_k!r}.")
        if exact and depth is not None:
            raise ValueError("`exact` scores all windows: it has no `depth`.")
        for _ in range(MAX_ATTEMPTS):
            version, store = self._snapshot()
            try:
                result = search_store(
                    store, self.locate, text, self.level_weights, top_k, None if exact else depth or SearchDepth()
                )
            except VideoIndexError:
                if self._snapshot()[1] is store:
                    raise
                continue  # what is missing has been deleted meanwhile
            # Rows have other numbers after a compaction; what was looked up meanwhile is of the wrong windows.
            if self._catalog.version().generation == version.generation:
                return result
        raise VideoIndexError(f"The index {self.path} is being compacted all the time: try again later.")

    def add(self, videos: Sequence[str | os.PathLike], **options: Any) -> "IndexReport":
        """
        Adds video files, and folders of them; see [`~indexing.index_videos`] for the options.

        Raises:
            ValueError: no videos, or an impossible option. A file that cannot be read raises nothing: the report and
                the index tell it.
        """
        from hcmi.retrieval.indexing.index_videos import index_videos

        return index_videos(self, videos, **options)

    def _load(self) -> None:
        with self._lock:
            if self._model is None:
                name = self._facts["model"]
                folder = self.path.absolute() / name
                here = self._facts.get("relative") and folder.is_dir()
                model, processor, _ = _loaded(folder if here else name, None, self._device)
                self._check(model)
                self._model, self._processor = model, processor

    def _check(self, model: HCMIModel) -> None:
        width = model.config.projection_dim
        if width != self.shape.width or not is_same(fingerprint(model), self._facts["fingerprint"]):
            raise VideoIndexError(
                f"The index {self.path} was made with the model {self._facts['model']} of width {self.shape.width}; "
                f"{model.name_or_path or 'this one'} of width {width} is another. Search with that one, or make the "
                "index anew."
            )


def _loaded(model: Any, processor: Any, device: Any) -> tuple[HCMIModel, HCMIProcessor, str]:
    """Model and processor, on the device and in evaluation mode, and the model's name."""
    if isinstance(model, HCMIModel):
        if processor is None:
            raise ValueError("A model needs its processor: pass processor=HCMIProcessor(…).")
        return model.eval(), processor, model.name_or_path or "a model without a name"
    name = os.fspath(model)
    if os.path.isdir(name):
        name = os.path.abspath(name)
    processor = processor or HCMIProcessor.from_pretrained(name)
    loaded = HCMIModel.from_pretrained(name)
    device = device or torch.accelerator.current_accelerator() or "cpu"
    return loaded.to(device).eval(), processor, name
