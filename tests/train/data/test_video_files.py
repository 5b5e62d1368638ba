import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcmi.train.data.video_files import VIDEO_EXTENSIONS, VideoFiles, walk_files, without_video_extension


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("video7.mp4", "video7"),
        ("a/b/video7.webm", "video7"),
        ("video7.AVI", "video7"),
        ("video7", "video7"),
        ("1@N0_2_c.", "1@N0_2_c"),
        ("1@N0_2_c..mp4", "1@N0_2_c."),
        ("1@N0_2_c.mov.mp4", "1@N0_2_c.mov"),
        ("1@N0_2_c.null", "1@N0_2_c.null"),
        ("Film_00.01.02.003-00.01.04.886.avi", "Film_00.01.02.003-00.01.04.886"),
        ("Film_00.01.02.003-00.01.04.886", "Film_00.01.02.003-00.01.04.886"),
        ("-_a.b-4_5_15.mkv", "-_a.b-4_5_15"),
    ],
)
def test_a_file_is_found_by_its_name_whatever_its_extension_and_folder(tmp_path, file, name):
    touch(tmp_path, file, "other.mp4", "readme.txt")
    files = VideoFiles(tmp_path)
    assert files.find(["absent", name]) == str(tmp_path / file)
    assert len(files) == 3


def test_files_that_only_begin_alike_are_not_taken(tmp_path):
    touch(tmp_path, "video7.json", "video7.jpg", "video70.mp4", "video7.mp4.part", ".video7.mp4", ".cache/video7.mp4")
    touch(tmp_path, "video7/frame.jpg")
    assert VideoFiles(tmp_path).find(["video7"]) is None


def test_the_first_name_that_any_file_has_is_taken(tmp_path):
    touch(tmp_path, "clip.avi", "clip.avi.mp4", "vid3.mp4")
    files = VideoFiles(tmp_path)
    assert files.find(["clip.avi", "clip"]) == str(tmp_path / "clip.avi.mp4")
    assert files.find(["clip", "clip.avi"]) == str(tmp_path / "clip.avi")
    assert files.find(["absent", "vid3"]) == str(tmp_path / "vid3.mp4")


def test_a_folder_in_the_name_tells_equal_files_apart(tmp_path):
    touch(tmp_path, "deep/Film_A/clip.avi", "deep/Other_Film_A/clip.avi")
    files = VideoFiles(tmp_path)
    assert files.find(["Film_A/clip"]) == str(tmp_path / "deep/Film_A/clip.avi")
    assert files.find(["Film_B/clip"]) is None
    with pytest.raises(ValueError, match=r"2 files in .* may be the video clip: .*Film_A.*one file a video"):
        files.find(["Film_B/clip", "clip"])


def test_two_encodings_of_a_video_are_refused(tmp_path):
    touch(tmp_path, "video7.mp4", "small/video7.webm", "video8.mp4")
    files = VideoFiles(tmp_path)
    with pytest.raises(ValueError, match=r"2 files .* may be the video video7"):
        files.find(["video7"])
    assert files.find(["video8"])


def test_the_folder_is_walked_once(tmp_path, monkeypatch):
    touch(tmp_path, *(f"f{n % 7}/clip{n}.mp4" for n in range(50)))
    scanned: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: scanned.append(str(folder)) or scandir(folder))
    monkeypatch.setattr(os, "listdir", lambda folder: pytest.fail("walked again"))
    files = VideoFiles(tmp_path)
    assert all(files.find([f"clip{n}"]) for n in range(50))
    assert sorted(scanned) == sorted([str(tmp_path), *(str(tmp_path / f"f{n}") for n in range(7))])


def test_links_are_followed_and_circles_end(tmp_path):
    touch(tmp_path, "elsewhere/a.mp4", "videos/b.mp4")
    (tmp_path / "videos/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "videos")
    (tmp_path / "videos/c.mp4").symlink_to(tmp_path / "elsewhere/a.mp4")
    (tmp_path / "videos/gone.mp4").symlink_to(tmp_path / "nothing")
    names = sorted(os.path.relpath(path, tmp_path / "videos") for path in walk_files(tmp_path / "videos"))
    assert names == ["b.mp4", "c.mp4", "more/a.mp4"]


def test_no_folder_is_an_error(tmp_path):
    for folder in (tmp_path / "absent", tmp_path / "file"):
        touch(tmp_path, "file")
        with pytest.raises(ValueError, match=f"there is no folder {folder}"):
            VideoFiles(folder)


def test_paths_are_absolute(tmp_path, monkeypatch):
    touch(tmp_path, "videos/a.mp4")
    monkeypatch.chdir(tmp_path)
    assert VideoFiles("videos").find(["a"]) == str(tmp_path / "videos/a.mp4")


@given(
    st.text("ab.-_", min_size=1).filter(lambda name: not name.endswith(".")), st.sampled_from(sorted(VIDEO_EXTENSIONS))
)
def test_only_the_last_extension_goes(stem, extension):
    assert without_video_extension(f"{stem}.{extension}") == stem
    assert without_video_extension(f"{stem}.{extension.upper()}") == stem
    assert without_video_extension(f"{stem}.886") == f"{stem}.886"
