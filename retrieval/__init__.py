"""Searching videos by text."""

from .encoded_videos import EncodedVideos
from .index import VideoIndex
from .index_errors import VideoIndexError
from .pipeline_hcmi import HCMIRetrievalPipeline

__all__ = ["EncodedVideos", "HCMIRetrievalPipeline", "VideoIndex", "VideoIndexError"]
