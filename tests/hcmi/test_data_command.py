import json
import subprocess
import sys

import pytest
import torch
from miniature_benchmarks import expect_miniature_counts, write_miniature
from tiny_hcmi import tiny_clip, tiny_tokenizer
from transformers import CLIPImageProcessor

from hcmi.cli import main
from hcmi.processing import HCMIProcessor
from hcmi.train.data.benchmarks import load_benchmark
from hcmi.train.data.candidates import PreparedCandidates
from hcmi.train.data.frame_sources import FileFrames
from hcmi.train.data.prepared_frames import frame_folder, prepare_frames


@pytest.fixture
def miniature(tmp_path, monkeypatch):
    copy = write_miniature("msrvtt", tmp_path / "msrvtt")
    expect_miniature_counts(monkeypatch, copy)
    return copy


@pytest.fixture
def place(miniature):
    return ["msrvtt", "--annotations", str(miniature.annotations), "--videos", str(miniature.videos)]


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The cache of `datasets` is a folder of the test's own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(params=["clip", "hcmi"])
def model(request, tmp_path):
    """Folder of a checkpoint's processor; frames of 16 pixels."""
    folder = tmp_path / request.param
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    if request.param == "hcmi":
        HCMIProcessor(images, tiny_tokenizer()).save_pretrained(folder)
    else:
        for part in (images, tiny_tokenizer(), tiny_clip()):
            part.save_pretrained(folder)
    return folder


def test_a_complete_benchmark_ends_with_0(place, capsys):
    assert main(["data", "check", *place, "--num-workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "train: 16 of 16 videos, 48 of 48 captions" in out and "be read" not in out
    assert main(["data", "check", *place, "--protocol", "full", "--split", "test"]) == 0
    out = capsys.readouterr().out
    assert "test: 8 of 8 videos, 24 of 24 captions" in out and "train:" not in out


def test_what_is_missing_or_broken_ends_with_1_and_is_reported(place, miniature, tmp_path, capsys):
    (miniature.videos / "TestVideo" / "video17.mp4").unlink()
    (miniature.videos / "TestVideo" / "video18.mp4").write_bytes(b"no video")
    report = tmp_path / "reports" / "check.json"
    options = ["--decode", "--frames", "3", "--num-workers", "1", "--report", str(report)]
    assert main(["data", "check", *place, "--split", "train", "--split", "test", *options]) == 1
    printed = capsys.readouterr()
    assert "video17" in printed.out and "video18.mp4): " in printed.out and str(report) in printed.out
    assert "16/16" in printed.err and "video/s" in printed.err
    written = json.loads(report.read_text())
    assert list(written["splits"]) == ["train", "test"] and not written["complete"]
    test = written["splits"]["test"]
    assert test["without_file"] == ["video17"] and test["decoded"]["frames"] == 3
    assert [video["video_id"] for video in test["decoded"]["unreadable"]] == ["video18"]


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_prepared_frames_are_those_that_training_asks_for(place, miniature, model, encoding, capsys):
    options = ["--model", str(model), "--candidates", "5", "--encoding", encoding, "--num-workers", "1"]
    assert main(["data", "prepare", *place, *options]) == 0
    out = capsys.readouterr().out
    assert "msrvtt train, 1k-A-9k: 16 videos" in out and "msrvtt test" not in out
    assert "train: 16 videos x 5 frames x " in out and f"({encoding}) = up to " in out and "are free in" in out
    assert "16 rows" in out and "4 rows" in out and "B on disk" in out
    if encoding == "raw":
        assert "x 768B (raw) = up to 61.4kB" in out

    processor = HCMIProcessor.from_pretrained(model)
    dataset = load_benchmark("msrvtt", "train", **miniature.place)
    folder = frame_folder(dataset)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.arrow")}
    prepared = PreparedCandidates(prepare_frames(dataset, processor, 5, folder, encoding=encoding))
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*.arrow")}
    exact, stored = FileFrames(processor, dataset, 5)(7), prepared(7)
    assert stored.timestamps == exact.timestamps.tolist()
    assert torch.equal(stored.frames[[0, 1, 2, 3, 4]], exact.frames) == (encoding == "raw")


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("model", ["hcmi"], indirect=True)
def test_frames_go_where_they_are_told(place, model, tmp_path):
    folder = tmp_path / "frames"
    options = ["--model", str(model), "--candidates", "2", "--folder", str(folder), "--split", "test"]
    assert main(["data", "prepare", *place, *options]) == 0
    (sub_folder,) = folder.iterdir()
    assert sub_folder.name.startswith("frames-2-raw-")


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("model", ["hcmi"], indirect=True)
def test_what_cannot_be_prepared_is_one_line(place, miniature, model, tmp_path, capsys):
    prepare = ["data", "prepare", *place, "--num-workers", "1"]
    with_model = [*prepare, "--model", str(model)]
    assert main([*prepare, "--model", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err
    assert main([*with_model, "--protocol", "1k-B"]) == 1
    assert "1k-B" in capsys.readouterr().err.splitlines()[-1]
    (miniature.videos / "TrainValVideo" / "video6.mp4").write_bytes(b"no video")
    assert main(with_model) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("hcmi data: error:") and "video6.mp4" in last and "hcmi data check msrvtt --decode" in last
    (miniature.videos / "TrainValVideo" / "video6.mp4").unlink()
    assert main(with_model) == 1
    assert "video6" in capsys.readouterr().err.splitlines()[-1]
    assert main([*with_model, "--allow-missing"]) == 0


def test_a_check_goes_on_anyway(place, capsys):
    assert main(["data", "check", *place, "--allow-missing"]) == 1
    assert "--allow-missing has no meaning here" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["check"], ["check", "msr"], ["prepare", "msrvtt"], ["clean", "msrvtt"]])
def test_wrong_usage_ends_with_2(argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["data", *argv])
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--num-workers", "0"], ["--frames", "few"], ["--split", "dev"]])
def test_wrong_values_are_wrong_usage(options):
    with pytest.raises(SystemExit, match="2"):
        main(["data", "check", "msrvtt", *options])


def test_debug_may_stand_at_the_end(place, capsys):
    assert main(["data", "check", *place, "--protocol", "1k-B", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_help_is_quick():
    program = (
        "import sys; from hcmi.cli import main\n"
        "try: main(['data', 'check', '--help'])\n"
        "except SystemExit: assert not {'torch', 'datasets', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, timeout=60)
