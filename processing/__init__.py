"""A video file and a sentence become tensors: decoding, frame sampling and the processor."""

from .processing_hcmi import HCMIProcessor
from .video_reading import VideoFrames, VideoInfo, VideoReadError, probe_video, read_frames

__all__ = ["HCMIProcessor", "VideoFrames", "VideoInfo", "VideoReadError", "probe_video", "read_frames"]
