from pathlib import Path

import pytest
from saved_hcmi import save_tiny_hcmi, write_video

from hcmi.retrieval import VideoIndex
from hcmi.retrieval.indexing.parts import join_parts, part_folder

OPTIONS = {"num_workers": 0, "progress": False}


def create(model: str, folder: Path) -> VideoIndex:
    return VideoIndex.create(folder, model, precision="float32", device="cpu")


@pytest.fixture
def folder(tmp_path) -> Path:
    save_tiny_hcmi(tmp_path / "model")
    for number in range(8):
        write_video(tmp_path / "videos" / f"{number}.mp4", frames=6 + number, seed=number)
    return tmp_path


def test_what_a_killed_run_has_left_is_joined_by_the_next(folder):
    model = str(folder / "model")
    videos = sorted((folder / "videos").glob("?.mp4"))
    with create(model, folder / "index") as index:
        index.add(videos[:2], **OPTIONS)
    with create(model, part_folder(folder / "index", 1)) as part:
        part.add(videos[2:5], **OPTIONS)
    part_folder(folder / "index", 2).mkdir()  # killed before there was anything in it
    with VideoIndex.open(folder / "index", device="cpu", write=True) as index:
        report = index.add([folder / "videos"], **OPTIONS)
        assert (report.unchanged, report.new) == (5, 3)
        assert len(index) == 8
    assert not part_folder(folder / "index", 1).parent.exists()


def test_a_part_that_is_being_written_is_left_alone(folder):
    model = str(folder / "model")
    with create(model, folder / "index") as index, create(model, part_folder(folder / "index", 1)):
        with pytest.raises(ValueError, match="Another process is writing"):
            join_parts(index)
        assert part_folder(folder / "index", 1).exists()
