"""Searching videos by text: the pipeline, and a picture of what it found."""

from .contact_sheet import draw_contact_sheet
from .encoded_videos import EncodedVideos
from .pipeline_hcmi import HCMIRetrievalPipeline

__all__ = ["EncodedVideos", "HCMIRetrievalPipeline", "draw_contact_sheet"]
