"""Sources of frames that fail where they are told to; one of them without videos."""

import os
import signal
import time

import torch

from hcmi.processing import VideoReadError
from hcmi.train.data.frame_sources import FileFrames, VideoFrames


class WrittenFrames:
    """
    Two frames of 4 pixels a row, whose first pixels hold the row and a number of the seed.

    Args:
        broken: rows that cannot be read.
        deadly: rows that end the process after a moment, as a crash or a lack of memory does.
        endless: rows that take for ever.
    """

    def __init__(self, broken=(), deadly=(), endless=()):
        self.broken = broken
        self.deadly = deadly
        self.endless = endless

    def sample(self, row, seeds):
        if row in self.broken:
            raise VideoReadError(f"{row}.mp4", "not a video")
        if row in self.deadly:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        if row in self.endless:
            time.sleep(3600)
        views = []
        for seed in seeds:
            frames = torch.full((2, 3, 4, 4), row, dtype=torch.uint8)
            frames[1] = sum(seed.encode()) % 256
            views.append(VideoFrames(frames, torch.tensor([0.0, 1.0]), (row, seed)))
        return views


class DeadlyFiles(FileFrames):
    """Decoded from files; row 5 ends the process."""

    def sample(self, row, seeds):
        if row == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(row, seeds)


class EndlessFiles(FileFrames):
    """Decoded from files; row 5 takes for ever."""

    def sample(self, row, seeds):
        if row == 5:
            time.sleep(3600)
        return super().sample(row, seeds)
