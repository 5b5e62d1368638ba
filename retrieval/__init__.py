"""Searching videos by text."""

from .encoded_videos import EncodedVideos
from .pipeline_hcmi import HCMIRetrievalPipeline

__all__ = ["EncodedVideos", "HCMIRetrievalPipeline"]
