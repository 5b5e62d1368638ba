"""HCMI in mteb, the Massive Text Embedding Benchmark, whose video retrieval tasks search in both directions."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset, Video

from hcmi.modeling_hcmi import HCMIModel, HCMITextFeatures, HCMIVideoFeatures, concatenate_features
from hcmi.processing import HCMIProcessor

from .pipeline_hcmi import HCMIRetrievalPipeline


class HCMISearch:
    """
    A model for mteb's retrieval tasks between texts and videos: it implements mteb's `SearchProtocol`, so that all of
    the model's levels count, which one vector for each item would not allow.

    Needs the package mteb: `pip install "hcmi[mteb]"`. mteb itself decodes no video here: files and bytes go to the
    processor as they are stored.

    Args:
        model: in evaluation mode.
        processor: its processor.
        name: what mteb's results call the model, `owner/name`.
        revision: likewise, for example a commit.

    Example:
        ```python
        import mteb
        from hcmi import HCMIModel, HCMIProcessor
        from hcmi.retrieval.mteb_hcmi import HCMISearch

        search = HCMISearch(HCMIModel.from_pretrained(folder), HCMIProcessor.from_pretrained(folder), "me/my-hcmi")
        mteb.evaluate(search, mteb.get_task("MSRVTTT2V"), encode_kwargs={"batch_size": 8})
        ```
    """

    def __init__(self, model: HCMIModel, processor: HCMIProcessor, name: str = "hcmi/hcmi", revision: str = "unknown"):
        self.model = model
        self.processor = processor
        self.name = name
        self.revision = revision
        self._corpus: tuple[list[str], HCMITextFeatures | HCMIVideoFeatures] | None = None

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb notes of the model beside its results."""
        from mteb.models.model_meta import ModelMeta

        return ModelMeta.create_empty(
            {
                "name": self.name,
                "revision": self.revision,
                "n_parameters": self.model.num_parameters(),
                "embed_dim": self.model.config.projection_dim,
                "max_tokens": float(self.model.config.text_config.max_position_embeddings),
                "modalities": ["text", "video"],
                "framework": ["PyTorch", "Transformers"],
                "model_type": ["late-interaction"],
            }
        )

    def index(
        self, corpus: Dataset, *, encode_kwargs: Mapping[str, Any], num_proc: int | None = None, **kwargs: Any
    ) -> None:
        """
        Encodes the corpus.

        Args:
            corpus: columns `id`, and `text` or `video`.
            encode_kwargs: `batch_size` and `show_progress_bar` are heeded.
            num_proc: processes that read videos.
            kwargs: what mteb says about the task.

        Raises:
            ValueError: rows that are neither texts nor videos, or both.
            VideoReadError: a video cannot be read.
        """
        self._corpus = [str(own) for own in corpus["id"]], self._encode(corpus, encode_kwargs, num_proc)

    @torch.no_grad()
    def search(
        self,
        queries: Dataset,
        *,
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """
        The best items of the corpus for each query.

        Args:
            queries: columns `id`, and `text` or `video`: what the corpus does not have.
            top_k: how many at most.
            encode_kwargs, num_proc, kwargs: as for `index`.
            top_ranked: for each query the ids that alone are to be ranked (reranking tasks).

        Returns:
            Query id -> id in the corpus -> similarity in -1..1.

        Raises:
            ValueError: as for `index`; no corpus yet, or queries of the corpus's own kind.
        """
        if self._corpus is None:
            raise ValueError("There is nothing to search: call index first.")
        ids, found = self._corpus
        asked = self._encode(queries, encode_kwargs, num_proc)
        if type(asked) is type(found):
            raise ValueError("HCMI compares texts with videos; queries and corpus are of one kind.")
        by_text = type(asked) is HCMITextFeatures
        texts, videos = (side.to(self.model.device) for side in ((asked, found) if by_text else (found, asked)))
        scores = self.model.score(texts, videos).combined.cpu()
        results = {}
        for query, row in zip(queries["id"], scores if by_text else scores.T, strict=True):
            ranked = [(ids[i], row[i].item()) for i in row.argsort(descending=True).tolist()]
            if top_ranked is not None:
                allowed = set(top_ranked[str(query)])
                ranked = [item for item in ranked if item[0] in allowed]
            results[str(query)] = dict(ranked[:top_k])
        return results

    def _encode(
        self, rows: Dataset, encode_kwargs: Mapping[str, Any], num_proc: int | None
    ) -> HCMITextFeatures | HCMIVideoFeatures:
        """Features of a data set's texts or videos, on the CPU."""
        kinds = {"text", "video", "audio", "image"} & set(rows.column_names)
        if kinds not in ({"text"}, {"video"}):
            raise ValueError(f"HCMI takes rows of texts or of videos, not of {', '.join(sorted(kinds)) or 'neither'}.")
        batch_size, progress = encode_kwargs.get("batch_size", 32), encode_kwargs.get("show_progress_bar")
        if kinds == {"text"}:
            return self._encode_texts(list(rows["text"]), batch_size)
        if isinstance(rows.features["video"], Video):
            rows = rows.cast_column("video", Video(decode=False))
        find = HCMIRetrievalPipeline(model=self.model, processor=self.processor, device=self.model.device)
        return find.encode_videos(rows["video"], batch_size, num_proc or 0, progress=progress).features

    @torch.no_grad()
    def _encode_texts(self, texts: list[str], batch_size: int) -> HCMITextFeatures:
        batches = []
        for first in range(0, len(texts), batch_size):
            processor: Any = self.processor
            tokens = processor(text=texts[first : first + batch_size], return_tensors="pt").to(self.model.device)
            features = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
            batches.append(features.to("cpu"))
        return concatenate_features(batches)
