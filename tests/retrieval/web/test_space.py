import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from demo_calls import ask, names_in
from demo_index import make_demo_index
from saved_hcmi import save_tiny_hcmi

pytest.importorskip("gradio", reason="the demo's own extra")

import gradio
import httpx

from hcmi import cli
from hcmi.retrieval import VideoIndex, VideoIndexError
from hcmi.retrieval.index.catalog import FileState
from hcmi.retrieval.index.window import Window
from hcmi.retrieval.web import space as demo_space

NAMES = ["one/a.mp4", "two/a.mp4", "b & c.mp4"]
SECONDS = 60  # that a process may take to start or to end


@pytest.fixture
def index(tmp_path):
    """Of three files; two more that are not to be published: one that cannot be read, one that was never encoded."""
    home = tmp_path / "home"
    for folder in ("one", "two"):
        (home / "videos" / folder).mkdir(parents=True)
    path = make_demo_index(home, save_tiny_hcmi(home / "model"), NAMES)
    with VideoIndex.open(path, write=True) as index:
        index.mark_unreadable(home / "bad.mp4", FileState(1, 2), "broken")
        index.begin_file(home / "later.mp4", FileState(1, 2), [Window(0, 0.0, 1.0)])
    return path


def test_the_folder_answers_elsewhere_and_without_the_originals(index, tmp_path, capsys):
    with VideoIndex.open(index, device="cpu") as opened:
        expected = opened.search("a red ring").hits
    assert cli.main(["demo", str(index), "--space", str(tmp_path / "My films"), "--device", "cpu"]) == 0
    assert "My films: 3 videos" in capsys.readouterr().out
    space = (tmp_path / "My films").rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "home")

    with VideoIndex.open(space / "index", device="cpu") as moved:
        hits = moved.search("a red ring").hits
        assert {video.path for video in moved} == {str(space / "videos" / name) for name in NAMES}
        assert [video.state for video in moved] == ["indexed"] * 3 and moved.shape.precision == "int8"
        moved.verify()
        (tmp_path / "again").mkdir()
        assert demo_space.write_space(moved, tmp_path / "again", "Films") == 3, "a copy can be copied"
    for hit, before in zip(hits, expected, strict=True):
        assert hit.video == str(space / "videos" / os.path.relpath(before.video, tmp_path / "home" / "videos"))
        assert (hit.start, hit.end, hit.window) == (before.start, before.end, before.window)
        assert hit.score == pytest.approx(before.score, abs=1e-3) and os.path.isfile(hit.video)
    for file in space.rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes(), f"{file} tells where it was made"

    with running(space) as client:
        html = ask(client, "search_text", "a red ring")
        assert "Find videos" in client.get("/").text and html.count("<li>") == 3
        video = client.get(f"/hits/{names_in(html)[0]}/video")
        assert video.content == Path(hits[0].video).read_bytes()


@contextmanager
def running(space):
    """The Space's program as a process, with the code of its own folder."""
    app = space / "app.py"
    app.write_text(app.read_text().replace("\nwith", "\nimport hcmi.retrieval\nprint(hcmi.retrieval.__file__)\nwith"))
    environment = os.environ | {"GRADIO_SERVER_PORT": "0", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen([sys.executable, app], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout.readline().startswith(str(space / "hcmi" / "retrieval"))
        with httpx.Client(base_url=process.stdout.readline().split(" ")[0], timeout=SECONDS) as client:
            yield client
    finally:
        process.terminate()
        process.wait(SECONDS)


def test_what_the_hub_reads(index, tmp_path):
    space = tmp_path / "space"
    space.mkdir()
    with VideoIndex.open(index, device="cpu") as opened:
        demo_space.write_space(opened, space, "Films")
    _, metadata, text = (space / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    told = yaml.safe_load(metadata)
    assert told["sdk"] == "gradio" and told["sdk_version"] == gradio.__version__ and told["app_file"] == "app.py"
    assert told["title"] == "Films" and "models" not in told and "3 videos" in text
    needed = (space / "requirements.txt").read_text().splitlines()
    assert f"gradio=={gradio.__version__}" in needed and any(line.startswith("torch>=") for line in needed)
    assert not any("pytest" in line for line in needed)


def test_what_cannot_be_published_is_told_and_nothing_is_left(index, tmp_path, capsys):
    os.unlink(tmp_path / "home" / "videos" / "one" / "a.mp4")
    target = tmp_path / "space"
    assert cli.main(["demo", str(index), "--space", str(target), "--device", "cpu"]) == 1
    told = capsys.readouterr().err
    assert "one/a.mp4 is not there any more" in told and "hcmi remove" in told
    assert not target.exists() and not list(tmp_path.glob(".space*"))
    with VideoIndex.open(index, device="cpu", write=True) as opened:
        opened.delete([video.path for video in opened])
        with pytest.raises(VideoIndexError, match="no videos"):
            demo_space.write_space(opened, tmp_path, "Films")


def test_a_model_of_the_hub_is_named(tmp_path):
    (tmp_path / "runs" / "model").mkdir(parents=True)
    names = {"owner/name": "owner/name", "a model without a name": None, str(tmp_path): None, "../model": None}
    assert {model: demo_space._hub_name(model) for model in names} == names
    demo_space._write_readme(tmp_path, "Films", 3, "owner/name")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(text.split("---\n")[1])["models"] == ["owner/name"]
    assert "https://huggingface.co/owner/name" in text
