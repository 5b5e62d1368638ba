import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.state import PartialState
from saved_hcmi import save_tiny_hcmi, write_video

from hcmi.cli import main
from hcmi.commands.index import summary
from hcmi.retrieval import VideoIndex
from hcmi.retrieval.index import qdrant_server
from hcmi.retrieval.indexing.report import IndexReport, Update
from hcmi.retrieval.indexing.window_encoding import WindowEncoder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_tiny_hcmi(tmp_path_factory.mktemp("model"))


@pytest.fixture
def videos(tmp_path) -> Path:
    for number in range(4):
        write_video(tmp_path / "videos" / f"{number}.mp4", frames=8 + number, seed=number)
    return tmp_path / "videos"


@pytest.fixture
def command(model, videos, tmp_path):
    """Runs `hcmi index` on the videos, and gives its exit status."""

    def index(*options: str) -> int:
        common = ["--index", str(tmp_path / "index"), "--device", "cpu", "--num-workers", "0"]
        return main(["index", str(videos), *common, *options])

    yield index
    PartialState._reset_state()


def test_a_folder_becomes_an_index_and_is_added_to(command, videos, model, tmp_path, capsys):
    assert command("--model", model) == 0
    first = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*/index: 4 videos indexed \(4 new\), 4 windows in \d+ s; 0 unchanged", first[0])
    assert len(first) == 1
    write_video(videos / "new.mp4", frames=9)
    (videos / "broken.mp4").write_bytes(b"nothing" * 99)
    assert command() == 0  # the index knows its model
    _, heading, line = capsys.readouterr().out.splitlines()
    assert heading == "1 video that cannot be read:"
    assert line.startswith(f"  {videos / 'broken.mp4'}: not a video")
    report = json.loads((tmp_path / "index" / "report.json").read_text())
    assert (report["new"], report["unchanged"], list(report["unreadable"])) == (1, 4, [str(videos / "broken.mp4")])
    with VideoIndex.open(tmp_path / "index", device="cpu") as index:
        assert len(index) == 5 and index.shape.precision == "int8"


def test_the_options_do_what_they_say(command, videos, model, tmp_path, capsys):
    long = write_video(videos / "long.mp4", frames=700)
    assert command("--model", model, "--windows", "fixed", "--seconds", "7", "--precision", "float16", "--hash") == 0
    (videos / "0.mp4").rename(videos / "renamed.mp4")
    (videos / "1.mp4").unlink()
    (videos / "broken.mp4").write_bytes(b"nothing" * 99)
    capsys.readouterr()
    assert command("--hash", "--remove-missing") == 0
    told = capsys.readouterr().out
    assert f"  {videos / 'renamed.mp4'}: was {videos / '0.mp4'}" in told
    assert f"1 video gone from the folders, and now from the index:\n  {videos / '1.mp4'}" in told
    assert command("--retry", "--batch-size", "1", "--reader-timeout", "60") == 0
    assert "not tried again" not in capsys.readouterr().out
    assert command() == 0
    assert "1 of them were known, and not tried again; --retry does" in capsys.readouterr().out
    with VideoIndex.open(tmp_path / "index", device="cpu") as index:
        assert len(index.windows(long)) == 10
        assert index.shape.precision == "float16"
        assert len(index) == 4


def test_where_nothing_can_be_read_the_status_says_so(command, videos, model):
    for path in videos.iterdir():
        path.write_bytes(b"nothing" * 99)
    assert command("--model", model) == 1
    assert command() == 1


def test_ctrl_c_tells_how_to_go_on(command, model, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(WindowEncoder, "_encode", interrupted)
        assert command("--model", model) == 130
    assert "The same command goes on from here." in capsys.readouterr().err
    assert command("--model", model) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name the model to make it with"),
        (["--model", "{model}", "--seconds", "0"], "more than 0 seconds"),
        (["--model", "{model}", "--device", "abacus"], "--device abacus"),
        (["--model", "runs/not/there"], "runs/not/there"),
    ],
)
def test_mistakes_are_told_in_one_line(command, model, options, message, capsys):
    assert command(*(option.format(model=model) for option in options)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("hcmi index: error:") and message in error


@pytest.mark.parametrize(
    ("path", "message"), [("missing", "no file or folder missing"), ("https://example.org/a.mp4", "is a URL")]
)
def test_only_files_and_folders_are_indexed(path, message, model, tmp_path, capsys):
    assert main(["index", path, "--model", model, "--index", str(tmp_path / "index"), "--device", "cpu"]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "index").exists()
    PartialState._reset_state()


def test_an_index_keeps_its_precision_and_its_model(command, model, tmp_path, capsys):
    assert command("--model", model) == 0
    assert command("--precision", "int8") == 0
    assert command("--precision", "float32") == 1
    assert "was made with precision int8" in capsys.readouterr().err
    other = save_tiny_hcmi(tmp_path / "other", frames_per_video=4)
    assert command("--model", other) == 0  # the same weights under another name


def test_the_embeddings_go_to_a_server(command, model, monkeypatch, tmp_path, capsys):
    client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
    monkeypatch.setattr(qdrant_server, "connect", lambda url: client)
    server = ("--url", "http://localhost:6333", "--collection", "films")
    assert command("--model", model, *server) == 0
    assert client.count("films", exact=True).count == 4
    assert command(*server) == 0 and "4 unchanged" in capsys.readouterr().out
    assert command("--collection", "others") == 1
    assert "was made with collection films: leave out --collection others" in capsys.readouterr().err
    assert main(["info", str(tmp_path / "index")]) == 0
    assert "http://localhost:6333, collection films" in capsys.readouterr().out
    assert main(["search", str(tmp_path / "index"), "a ring", "--device", "cpu"]) == 0
    assert "4 windows" in capsys.readouterr().out


def test_a_collection_takes_a_server(command, model, capsys):
    assert command("--model", model, "--collection", "films") == 1
    assert "`collection`" in capsys.readouterr().err


def program(*arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", *arguments], env=environment, capture_output=True, text=True, timeout=300
    )


def test_as_a_module_with_reader_processes(model, videos, tmp_path):
    done = program("hcmi.cli", "index", str(videos), "--model", model, "--index", str(tmp_path / "index"))
    assert done.returncode == 0, done.stderr
    assert "4 videos indexed (4 new)" in done.stdout
    assert "Indexing: 4/4 videos, 4 windows" in done.stderr


def test_several_processes_of_a_launcher_share_the_work(model, videos, tmp_path):
    (videos / "broken.mp4").write_bytes(b"nothing" * 99)
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "hcmi.cli", "index"]
    done = program(*launch, str(videos), "--model", model, "--index", str(tmp_path / "index"), "--num-workers", "0")
    assert done.returncode == 0, done.stderr
    assert "4 videos indexed (4 new)" in done.stdout and "1 video that cannot be read" in done.stdout
    with VideoIndex.open(tmp_path / "index", device="cpu") as index:
        assert len(index) == 4 and index.info.unreadable == 1
        index.verify()


def test_the_summary_names_every_file_that_needs_a_look():
    report = IndexReport(
        finished=True,
        videos=9,
        unchanged=2,
        new=1,
        continued=1,
        updates=[Update("old", "new", 1, 1, ""), Update("same", "same", 1, 1, "")],
        copies={"copy": "original"},
        unreadable={"broken": "empty"},
        not_tried=1,
        damaged={"cut": "it ends"},
        removed=["gone"],
        windows=5,
        seconds=3.4,
    )
    assert list(summary(report, Path("index"))) == [
        "index: 2 videos indexed (1 new, 1 begun earlier), 5 windows in 3 s; 2 unchanged",
        "1 video with another name:",
        "  new: was old",
        "1 video with another time and the same content:",
        "  same",
        "1 video left out as copies:",
        "  copy: is original",
        "1 video gone from the folders:",
        "  gone",
        "  --remove-missing deletes them from the index",
        "1 video damaged, and indexed as far as they can be read:",
        "  cut: it ends",
        "1 video that cannot be read:",
        "  broken: empty",
        "  1 of them were known, and not tried again; --retry does",
    ]
