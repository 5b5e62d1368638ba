"""Run as a script, it is one of two processes that index a folder together."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import join, leave, run_two
from saved_hcmi import save_tiny_hcmi, write_video

from hcmi.retrieval import VideoIndex
from hcmi.retrieval.indexing.parts import part_folder
from hcmi.retrieval.indexing.report import IndexReport
from hcmi.retrieval.indexing.windows import WindowRule

OPTIONS = {"rule": WindowRule("fixed", 0.5, least=0.0, whole_up_to=0.5), "num_workers": 0, "progress": False}


def create(model: str, folder: Path) -> VideoIndex:
    return VideoIndex.create(folder, model, precision="float32", device="cpu")


def main(folder: str) -> None:
    from accelerate import PartialState

    from hcmi.retrieval.indexing.shared import index_in_processes

    join(folder)
    index, make = Path(folder, "index"), partial(create, f"{folder}/model")
    state = PartialState(cpu=True)
    reports = [index_in_processes(state, index, [f"{folder}/videos"], partial(make, index), make, hash=True, **OPTIONS)]
    if state.is_main_process:
        Path(folder, "videos", "0.mp4").rename(Path(folder, "videos", "renamed.mp4"))
        write_video(Path(folder, "videos", "1.mp4"), frames=30, seed=20)
        Path(folder, "videos", "2.mp4").unlink()
    state.wait_for_everyone()
    again = partial(VideoIndex.open, index, device="cpu", write=True)
    reports.append(
        index_in_processes(state, index, [f"{folder}/videos"], again, make, hash=True, remove_missing=True, **OPTIONS)
    )
    leave(folder, reports)


@pytest.fixture
def folder(tmp_path) -> Path:
    save_tiny_hcmi(tmp_path / "model")
    for number in range(8):
        write_video(tmp_path / "videos" / f"{number}.mp4", frames=6 + number, seed=number)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"nothing" * 99)
    (tmp_path / "videos" / "torn.mp4").write_bytes(b"something" * 99)
    return tmp_path


def features(index: VideoIndex) -> dict[str, torch.Tensor]:
    return {video.path: index.read(video.path).features.frames for video in index if video.windows}


def test_two_processes_make_the_index_that_one_makes(folder):
    with create(str(folder / "model"), folder / "alone") as index:
        index.add([folder / "videos"], **OPTIONS)
        alone = features(index)
    (first, second), others = run_two(__file__, folder)
    assert others == [None, None]
    assert (first.finished, first.videos, first.new, len(first.unreadable)) == (True, 10, 8, 2)
    assert IndexReport.load(folder / "index") == [second]
    assert (second.videos, second.unchanged, second.changed, second.not_tried) == (9, 5, 1, 2)
    assert [(Path(update.old).name, Path(update.new).name) for update in second.updates] == [("0.mp4", "renamed.mp4")]
    assert (second.removed, second.deleted) == ([str(folder / "videos" / "2.mp4")], True)

    assert not part_folder(folder / "index", 1).parent.exists()
    with VideoIndex.open(folder / "index", device="cpu") as index:
        index.verify()
        found = features(index)
        changed = found.pop(str(folder / "videos" / "1.mp4"))
    assert len(changed) == 6
    del alone[str(folder / "videos" / "1.mp4")], alone[str(folder / "videos" / "2.mp4")]
    alone[str(folder / "videos" / "renamed.mp4")] = alone.pop(str(folder / "videos" / "0.mp4"))
    assert found.keys() == alone.keys()
    assert all(torch.allclose(found[path], alone[path], atol=1e-5) for path in found)


if __name__ == "__main__":
    main(sys.argv[1])
