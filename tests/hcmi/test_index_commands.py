import json
import subprocess
import webbrowser
from pathlib import Path

import pytest
from encoded import random_encoded
from saved_hcmi import save_tiny_hcmi, write_video

from hcmi import cli
from hcmi.commands import search as search_command
from hcmi.processing.video_reading import probe_video
from hcmi.retrieval import VideoIndex
from hcmi.retrieval.index.catalog import FileState
from hcmi.retrieval.index.window import Window

WIDTH = 24  # of the tiny model


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    return save_tiny_hcmi(tmp_path_factory.mktemp("model"))


@pytest.fixture
def index(model_folder, tmp_path) -> Path:
    """Of three real files with random embeddings, and one that could not be read."""
    paths = [write_video(tmp_path / "videos" / f"{i}.mp4", 40, seed=i) for i in range(3)]
    with VideoIndex.create(tmp_path / "index", model_folder, device="cpu") as made:
        places = []
        for count, path in enumerate(paths, 1):
            made.begin_file(path, FileState(10, 20, duration=4.0), [Window(n, 0.0, 4.0) for n in range(count)])
            places += [(path, n) for n in range(count)]
        made.append(random_encoded([4] * 6, WIDTH), places)
        made.mark_unreadable(tmp_path / "videos" / "bad.mp4", FileState(0, 0), "empty")
    return tmp_path / "index"


def test_search_prints_what_the_index_finds(index, capsys):
    assert cli.main(["search", str(index), "a red ring", "--device", "cpu", "--top", "3"]) == 0
    printed = capsys.readouterr().out
    with VideoIndex.open(index, device="cpu") as opened:
        expected = opened.search("a red ring", top_k=3)
    rows = [line for line in printed.splitlines() if ".mp4" in line]
    for rank, (row, hit) in enumerate(zip(rows, expected.hits, strict=True), 1):
        assert row.split()[:2] == [str(rank), f"{hit.score:.3f}"] and hit.video in row
    assert "and 2 more" in printed and "6 windows" in printed

    options = ["--nearest", "5", "--rescored", "2", "--json", "--device", "cpu", "--top", "1"]
    assert cli.main(["search", str(index), "a red ring", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nearest"] == 5 and found["rescored"] == 2 and len(found["hits"]) == 1
    assert set(found["hits"][0]["level_scores"]) == {"frame_word", "clip_phrase", "video_sentence"}


def test_search_by_an_example_saves_moments_and_plays_the_best(index, capsys, monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(search_command.shutil, "which", lambda name: None)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    example = str(tmp_path / "videos" / "1.mp4")
    folder = tmp_path / "found"
    command = ["search", str(index), "--video", example, "--top", "2", "--device", "cpu"]
    assert cli.main([*command, "--json", "--open", "--save-clips", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert opened == [Path(found["hits"][0]["video"]).as_uri()]
    assert sorted(map(str, folder.iterdir())) == sorted(found["saved"]) and len(found["saved"]) == 2
    for path, hit in zip(found["saved"], found["hits"], strict=True):
        assert probe_video(path).duration >= hit["end"] - hit["start"] - 0.11

    started = []
    monkeypatch.setattr(search_command.shutil, "which", lambda name: "/usr/bin/mpv" if name == "mpv" else None)
    monkeypatch.setattr(subprocess, "Popen", lambda words, **_: started.append(words))
    assert cli.main([*command, "--open"]) == 0
    hit = found["hits"][0]
    assert started == [["/usr/bin/mpv", f"--start={hit['start']:.2f}", hit["video"]]]


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "Search for a text"),
        (["a", "--video", "b.mp4"], "Search for a text"),
        (["a", "--exact", "--nearest", "3"], "--exact"),
    ],
)
def test_search_refuses_what_does_not_go_together(index, capsys, options, message):
    assert cli.main(["search", str(index), *options]) == 1
    assert message in capsys.readouterr().err


def test_info_tells_what_there_is(index, capsys, model_folder):
    assert cli.main(["info", str(index), "--files", "--verify"]) == 0
    printed = capsys.readouterr().out
    for part in (model_folder, "3 in 6 windows", "unreadable: 1", "int8", "bad.mp4  empty", "as it was written"):
        assert part in printed
    assert cli.main(["info", str(index), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["windows"] == 6
    assert cli.main(["info", str(index / "nowhere")]) == 1
    assert "hcmi index" in capsys.readouterr().err


def test_remove_takes_files_and_folders_and_compact_gives_space_back(index, capsys, tmp_path):
    one, unknown = str(tmp_path / "videos" / "2.mp4"), str(tmp_path / "elsewhere")
    assert cli.main(["remove", str(index), one, unknown]) == 1
    printed = capsys.readouterr()
    assert "removed: 1 " in printed.out and unknown in printed.err
    assert cli.main(["info", str(index)]) == 0
    assert "3 windows, whose space" in capsys.readouterr().out
    assert cli.main(["compact", str(index)]) == 0
    with VideoIndex.open(index) as opened:
        assert opened.info.dead == 0 and opened.info.windows == 3
    assert cli.main(["remove", str(index), str(tmp_path / "videos")]) == 0
    with VideoIndex.open(index) as opened:
        assert list(opened) == []
