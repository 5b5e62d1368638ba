"""Indexing in a process of its own, which can be killed; forked off one that has imported everything."""

import multiprocessing
import os
from multiprocessing.process import BaseProcess
from pathlib import Path

_IMPORTED = ["hcmi.retrieval.indexing.index_videos", "transformers.models.clip.modeling_clip"]


def start(index: Path, model: str, videos: Path, seconds: float) -> BaseProcess:
    """Begins to index a folder, in windows of that many seconds; goes on where the index is there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    process = context.Process(target=_run, args=(index, model, videos, seconds))
    process.start()
    return process


def _run(index: Path, model: str, videos: Path, seconds: float) -> None:
    import torch

    from hcmi.retrieval import VideoIndex
    from hcmi.retrieval.indexing.windows import WindowRule

    torch.set_num_threads(1)
    output = os.open(index.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if (index / "catalog.sqlite").exists():
        opened = VideoIndex.open(index, device="cpu", write=True)
    else:
        opened = VideoIndex.create(index, model, precision="float32", device="cpu")
    rule = WindowRule("fixed", seconds, least=0.0, whole_up_to=seconds)
    opened.add([videos], rule=rule, batch_size=3, num_workers=0, progress=False)
    opened.close()
