"""Searching videos by text."""

from .encoded_videos import EncodedVideos
from .index.errors import VideoIndexError
from .index.search import Hit, SearchDepth, SearchResult
from .index.video_index import VideoIndex
from .index.window import Window
from .indexing.report import IndexReport
from .indexing.windows import WindowRule
from .pipeline_hcmi import HCMIRetrievalPipeline

__all__ = [
    "EncodedVideos",
    "HCMIRetrievalPipeline",
    "Hit",
    "IndexReport",
    "SearchDepth",
    "SearchResult",
    "VideoIndex",
    "VideoIndexError",
    "Window",
    "WindowRule",
]
