"""The pipeline "text-video-retrieval": queries and videos in, a ranking with scores and time spans out."""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import Pipeline

from hcmi.modeling_hcmi import LEVELS
from hcmi.modeling_hcmi.moments_hcmi import frame_relevance, relevant_span
from hcmi.processing.video_reading import VideoReadError

from .encoded_videos import EncodedVideos
from .remote_code import save_pipeline_code

VIDEOS_AT_ONCE = 1024
"""Encoded videos that are moved to the model's device and scored at a time."""

MANY_VIDEOS = 20
"""From so many videos on, encoding shows a progress bar unless told otherwise."""


class HCMIRetrievalPipeline(Pipeline):
    """
    Finds videos by text, and the stretch of each that answers the query.

    Made by `pipeline("text-video-retrieval", model=…)`, with `batch_size`, `num_workers`, `device` and `dtype` as for
    any pipeline.

    Example:
        ```python
        import hcmi
        from transformers import pipeline

        pipe = pipeline("text-video-retrieval", model="path/to/model")
        pipe("a red ring slides left", videos=["a.mp4", "b.mp4"], top_k=1)
        # [{"video": "b.mp4", "score": 0.71, "start": 1.5, "end": 3.0, "level_scores": {"frame_word": 0.6, …}}]

        encoded = pipe.encode_videos(["a.mp4", "b.mp4"], batch_size=8)  # once …
        pipe(["a red ring slides left", "two squares grow"], videos=encoded)  # … for any number of searches

        pipe = pipeline("text-video-retrieval", model="path/to/model", index="my_index")  # made by `hcmi index`
        pipe("a red ring slides left")
        ```
    """

    model: Any
    processor: Any
    _load_processor = True  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]
    _load_video_processor = False  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer = False  # type: ignore[assignment]

    def __init__(self, model: Any, processor: Any = None, index: Any = None, **kwargs: Any):
        if model.config.model_type != "hcmi":
            raise ValueError(
                f"text-video-retrieval needs an HCMIModel, got {type(model).__name__}. "
                "HCMIModel.from_clip_pretrained makes one from a CLIP checkpoint."
            )
        if processor is None:
            raise ValueError("HCMIRetrievalPipeline needs a processor: pass processor=HCMIProcessor(…).")
        super().__init__(model=model, processor=processor, **kwargs)
        self.index = self._open(index) if isinstance(index, (str, os.PathLike)) else index

    def _open(self, path: str | os.PathLike) -> Any:
        """An index that was made with this model."""
        # By its name: the file that travels to the Hub as code works without the package, but for this.
        try:
            retrieval = import_module("hcmi.retrieval")
        except ImportError as error:
            raise ValueError("Searching an index needs the package: pip install hcmi.") from error
        return retrieval.VideoIndex.open(path, model=self.model, processor=self.processor)

    def __call__(  # type: ignore[override]
        self,
        queries: str | Iterable[str],
        videos: EncodedVideos | Sequence[Any] | None = None,
        *,
        batch_size: int | None = None,
        num_workers: int | None = None,
        on_error: str = "raise",
        progress: bool | None = None,
        **parameters: Any,
    ) -> Any:
        """
        Ranks the videos for each query.

        Args:
            queries: a text, or a list of texts; a generator or a `Dataset` of texts gives an iterator of results.
            videos: a list (or a `datasets` column) of anything `HCMIProcessor` takes as a video, or what
                `encode_videos` has returned. Every video is encoded once, however many queries there are. Without
                them the pipeline's `index` is searched.
            batch_size, num_workers, on_error, progress: as for `encode_videos`.
            top_k (`int`, defaults to 5): how many videos to return for each query, at most; `None` for all.

        Returns:
            For each query a list of dictionaries, best first, equal scores in the order of the videos; for a single
            text that list itself:
            - **video** (`str`): path or URL as given; `videos[i]` for a video that has neither.
            - **score** (`float`): the combined similarity, -1..1.
            - **start**, **end** (`float`): seconds in the file of the clip that answers the query's best phrase.
            - **level_scores** (`dict[str, float]`): similarity on the levels frame_word, clip_phrase, video_sentence.
            - of an index also **window**, the stretch that was scored, and **others** of the same video.

        Raises:
            ValueError: no query or an empty one, no videos and no index, or an impossible argument.
            VideoReadError: a video cannot be read (see `on_error`).
        """
        self._sanitize_parameters(**parameters)  # what is wrong shall be said before the videos are encoded
        queries = list(queries) if isinstance(queries, (list, tuple)) else queries
        _check_queries(queries)
        if videos is None:
            return self._search_index(queries, **parameters)
        if not isinstance(videos, EncodedVideos):
            videos = self.encode_videos(videos, batch_size, num_workers, on_error, progress)
        width = self.model.config.projection_dim
        if videos.width != width:
            raise ValueError(
                f"The encoded videos are {videos.width} wide, this model's embeddings {width}: another model has made "
                "them. Encode the videos again with this pipeline's encode_videos."
            )
        # Cutting queries into tokens is not worth starting processes.
        return super().__call__(queries, batch_size=batch_size, num_workers=0, videos=videos, **parameters)

    def _search_index(self, queries: Any, top_k: int | None = 5) -> Any:
        """The rankings of the index: one, a list, or an iterator, as the queries are."""
        if self.index is None:
            raise ValueError("There is nothing to search: pass `videos`, or make the pipeline with index=….")
        if isinstance(queries, str):
            return [hit.to_dict() for hit in self.index.search(queries, top_k=top_k or max(1, len(self.index))).hits]
        rankings = (self._search_index(query, top_k) for query in queries)
        return list(rankings) if isinstance(queries, list) else rankings

    def encode_videos(
        self,
        videos: Sequence[Any],
        batch_size: int | None = None,
        num_workers: int | None = None,
        on_error: str = "raise",
        progress: bool | None = None,
    ) -> EncodedVideos:
        """
        Encodes videos once, to be searched any number of times.

        Args:
            videos: as for the call.
            batch_size: videos that the model takes at a time; default: the pipeline's, which is 1 unless set.
            num_workers: processes that read videos ahead; default: the pipeline's, which is 0 unless set.
            on_error: what to do about a video that cannot be read: `"raise"` VideoReadError, or `"skip"` it with a
                warning that names it.
            progress: show a progress bar; default: for 20 videos or more.

        Returns:
            The embeddings on the CPU: about `(frames + clips + 1) · width` numbers a video.

        Raises:
            ValueError: no videos, not a list, or an unknown `on_error`.
            VideoReadError: a video cannot be read, or with `"skip"`, none can.
        """
        _check_videos(videos)
        if on_error not in ("raise", "skip"):
            raise ValueError(f'`on_error` has to be "raise" or "skip", got {on_error!r}.')
        batch_size = (self._batch_size or 1) if batch_size is None else batch_size
        num_workers = (self._num_workers or 0) if num_workers is None else num_workers
        show = len(videos) >= MANY_VIDEOS if progress is None else progress
        reader = DataLoader(
            _VideoReader(self.processor, videos), batch_size=batch_size, num_workers=num_workers, collate_fn=list
        )
        encoded: list[EncodedVideos] = []
        unreadable: list[VideoReadError] = []
        with tqdm(total=len(videos), desc="Encoding videos", unit="video", disable=not show) as bar:
            for batch in reader:
                readable = [(name, read) for name, read in batch if not isinstance(read, VideoReadError)]
                unreadable += [read for _, read in batch if isinstance(read, VideoReadError)]
                if unreadable and on_error == "raise":
                    raise unreadable[0]
                if readable:
                    encoded.append(self._encode(*zip(*readable, strict=True)))
                bar.update(len(batch))
        if not encoded:
            raise VideoReadError(f"None of the {len(videos)} videos can be read; the first is {unreadable[0]}")
        if unreadable:
            reasons = "\n".join(f"  {error}" for error in unreadable)
            warnings.warn(f"{len(unreadable)} of {len(videos)} videos are left out:\n{reasons}", stacklevel=2)
        return EncodedVideos.concatenate(encoded)

    def _encode(self, names: Sequence[str], videos: Sequence[Mapping[str, torch.Tensor]]) -> EncodedVideos:
        """One batch through the model; of its outputs only what retrieval needs is kept."""
        batch = {key: torch.cat([video[key] for video in videos]) for key in videos[0]}
        with self.device_placement(), torch.no_grad():
            inputs = self.ensure_tensor_on_device(**{key: batch[key] for key in ("pixel_values_videos", "video_mask")})
            features = self.model.get_video_features(**inputs).to("cpu")
        return EncodedVideos(list(names), features, batch["timestamps"], batch["video_spans"])

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown := set(parameters) - {"videos", "top_k"}:
            raise ValueError(f"The pipeline text-video-retrieval has no argument {', '.join(sorted(unknown))}.")
        top_k = parameters.get("top_k")
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"`top_k` has to be an integer from 1 on, or None for all videos, got {top_k!r}.")
        videos = {key: value for key, value in parameters.items() if key == "videos"}
        return {}, videos, parameters

    def preprocess(self, query: str) -> dict[str, torch.Tensor]:  # type: ignore[override]
        """A query as tokens: `input_ids` and `attention_mask` `(1, W)`."""
        _check_query(query)
        tokens = self.processor(text=[query], return_tensors="pt")
        return {key: tokens[key] for key in ("input_ids", "attention_mask")}

    def _forward(  # type: ignore[override]
        self, model_inputs: Mapping[str, torch.Tensor], videos: EncodedVideos
    ) -> dict[str, torch.Tensor]:
        """Similarities `(T, V)` per level and combined, and the relevance of each frame, `(T, V, F)`."""
        texts = self.model.get_text_features(**model_inputs)
        blocks = []
        for first in range(0, len(videos), VIDEOS_AT_ONCE):
            block = videos.features.select(slice(first, first + VIDEOS_AT_ONCE)).to(texts.pooler_output.device)
            blocks.append({**self.model.score(texts, block), "relevance": frame_relevance(texts, block)})
        return {key: torch.cat([block[key] for block in blocks], dim=1) for key in blocks[0]}

    def postprocess(  # type: ignore[override]
        self, model_outputs: Mapping[str, torch.Tensor], videos: EncodedVideos, top_k: int | None = 5
    ) -> list[dict[str, Any]]:
        """The ranking of one query, as described at the call."""
        outputs = {key: rows[0] for key, rows in model_outputs.items()}
        order = torch.sort(outputs["combined"], descending=True, stable=True).indices[:top_k].tolist()
        hits = []
        for index in order:
            start, end = relevant_span(
                outputs["relevance"][index],
                videos.features["frame_mask"][index],
                videos.timestamps[index],
                *videos.video_spans[index].tolist(),
            )
            hits.append(
                {
                    "video": videos.names[index],
                    "score": outputs["combined"][index].item(),
                    "start": start,
                    "end": end,
                    "level_scores": {level: outputs[level][index].item() for level in LEVELS},
                }
            )
        return hits

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """
        Saves model and processor, and the code of all three: the folder that `pipeline("text-video-retrieval",
        model=folder)` takes, with `trust_remote_code=True` also where this package is not installed. `push_to_hub`
        publishes the same files.

        Args:
            save_directory: the folder.
            kwargs: as for the model's `save_pretrained` (`max_shard_size`, …).

        Raises:
            ValueError: asked to publish what is saved, which would be the model alone.
        """
        if kwargs.get("push_to_hub"):
            raise ValueError("save_pretrained of this pipeline saves only: publish it with pipe.push_to_hub(…).")
        # The base class would save no processor, and code that imports this package.
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)
        save_pipeline_code(type(self), "text-video-retrieval", Path(save_directory))


class _VideoReader(Dataset):
    """Videos by index, read where the `DataLoader` wants it: `(name, tensors or the error)`; frames stay uint8."""

    def __init__(self, processor: Any, videos: Sequence[Any]):
        self.processor = processor
        self.videos = videos

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[str, Any]:
        video = self.videos[index]
        name = _name(video)
        try:
            tensors = self.processor(videos=[video], uint8=True, return_tensors="pt")
        except ValueError as error:
            # By its name: a processor that was loaded from a folder with its code has a class of its own for it.
            if type(error).__name__ != "VideoReadError":
                raise
            return name or f"videos[{index}]", VideoReadError(*error.args if name else (f"videos[{index}]", str(error)))
        return name or f"videos[{index}]", dict(tensors)


def _name(video: Any) -> str | None:
    """Path or URL of a video, if it has one."""
    if isinstance(video, Mapping):
        video = video.get("path")
    elif hasattr(video, "read"):
        video = getattr(video, "name", None)
    return os.fspath(video) if isinstance(video, (str, os.PathLike)) else None


def _check_queries(queries: Any) -> None:
    """Refuses beforehand what can be seen to be wrong; the queries of a stream are checked as they come."""
    if isinstance(queries, list) and not queries:
        raise ValueError("There is no query: pass a text or a list of texts.")
    for query in queries if isinstance(queries, list) else [queries] if isinstance(queries, str) else ():
        _check_query(query)


def _check_query(query: Any) -> None:
    if not isinstance(query, str):
        raise ValueError(f"A query has to be a text, got {type(query).__name__}.")
    if not query.strip():
        raise ValueError("A query is empty: say in words what the video shows.")


def _check_videos(videos: Any) -> None:
    single = isinstance(videos, (str, bytes, os.PathLike, Mapping)) or hasattr(videos, "read")
    if single or not (hasattr(videos, "__len__") and hasattr(videos, "__getitem__")):
        raise ValueError(f"`videos` has to be a list of videos, got {type(videos).__name__}: put one video in a list.")
    if len(videos) == 0:
        raise ValueError("There are no videos to search: `videos` is empty.")
