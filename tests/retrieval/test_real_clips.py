import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from saved_hcmi import save_tiny_hcmi

from hcmi.processing import probe_video
from hcmi.retrieval import VideoIndex

CLIPS = os.environ.get("HCMI_CLIPS")


@pytest.mark.skipif(not CLIPS, reason="HCMI_CLIPS names no folder of real clips")
def test_real_clips_are_indexed_whole_and_found_by_themselves(tmp_path):
    folder = Path(str(CLIPS))
    clips = [str(folder / name) for name in sorted(json.loads((folder / "captions.json").read_text()))]
    with VideoIndex.create(tmp_path / "index", save_tiny_hcmi(tmp_path / "model"), device="cpu") as index:
        report = index.add([folder])
        assert (report.new, report.unreadable, report.damaged) == (len(clips), {}, {})
        assert [video.path for video in index] == clips
        for clip in clips:
            windows = index.windows(clip)
            assert windows[0].start == 0 and windows[-1].end == pytest.approx(probe_video(clip).end, abs=0.05)
            assert all(first.end == second.start for first, second in pairwise(windows))
        for clip in clips[::5]:
            (hit,) = index.search(video=clip, top_k=1).hits
            assert hit.video == clip and hit.score > 0.99
            assert hit.window.start <= hit.start < hit.end <= hit.window.end + 0.05
            assert hit.thumbnail(90).height == 90
