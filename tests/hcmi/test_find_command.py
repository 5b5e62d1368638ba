import json
from pathlib import Path

import pytest
from PIL import Image
from saved_hcmi import save_tiny_hcmi, write_mixed_folder
from transformers import pipeline

from hcmi.cli import main
from hcmi.commands.find import table


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    return save_tiny_hcmi(tmp_path_factory.mktemp("model"))


@pytest.fixture
def clips(tmp_path) -> Path:
    return write_mixed_folder(tmp_path / "clips")


def test_the_table_lines_up():
    hits = [
        {"video": "a.mp4", "score": 0.51234, "start": 1.25, "end": 63.0},
        {"video": "b c.mp4", "score": -0.1, "start": 6000.0, "end": 6001.0},
    ]
    assert table("a red ring", hits).splitlines() == [
        '"a red ring"',
        "  rank   score  time                 video",
        "     1   0.512  00:01.2 - 01:03.0    a.mp4",
        "     2  -0.100  100:00.0 - 100:01.0  b c.mp4",
    ]


def test_find_prints_writes_and_draws_what_the_pipeline_finds(model_folder, clips, tmp_path, capsys):
    written, drawn = tmp_path / "out" / "hits.json", tmp_path / "out" / "sheet.png"
    arguments = ["find", "red ring", "blue", "--model", model_folder, "--videos", str(clips), "--device", "cpu"]
    assert main([*arguments, "--top", "2", "--json", str(written), "--contact-sheet", str(drawn)]) == 0

    readable = [str(clips / "b.mp4"), str(clips / "deeper" / "a.MP4")]
    expected = pipeline("text-video-retrieval", model=model_folder, device="cpu")(["red ring", "blue"], videos=readable)
    report = json.loads(written.read_text())
    assert report["model"] == model_folder
    assert report["videos"] == 2
    assert report["left_out"] == [str(clips / "deeper" / "broken.avi")]
    assert [result["query"] for result in report["results"]] == ["red ring", "blue"]
    for result, hits in zip(report["results"], expected, strict=True):
        assert [hit["video"] for hit in result["hits"]] == [hit["video"] for hit in hits]
        for hit, other in zip(result["hits"], hits, strict=True):
            assert [hit[key] for key in ("score", "start", "end")] == pytest.approx(
                [other[key] for key in ("score", "start", "end")], abs=1e-4
            )
            assert hit["level_scores"] == pytest.approx(other["level_scores"], abs=1e-4)

    printed, told = capsys.readouterr()
    warning = next(line for line in told.splitlines() if line.startswith("hcmi find: warning:"))
    assert warning.endswith("1 of 3 videos are left out:") and f"  {clips / 'deeper' / 'broken.avi'}: " in told
    assert "UserWarning" not in told
    for query, hits in zip(["red ring", "blue"], expected, strict=True):
        lines = printed[printed.index(f'"{query}"') :].splitlines()[2:4]
        assert [line.split()[0] for line in lines] == ["1", "2"]
        assert [line.split()[-1] for line in lines] == [hit["video"] for hit in hits]
    assert str(written) in printed
    assert str(drawn) in printed
    with Image.open(drawn) as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "m", "--videos", "folder", "a query"], "no query"),
        (["q", "--model", "m", "--videos", "missing"], "no file or folder missing"),
        (["q", "--model", "m", "--videos", "v", "--top", "0"], "--top"),
        (["q", "--model", "m", "--videos", "v", "--batch-size", "0"], "--batch-size"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, capsys):
    assert main(["find", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_model_or_device_that_is_not_there_is_told_in_one_line(model_folder, clips, capsys):
    for model, device, message in (
        ("runs/not/there", "cpu", "no model folder runs/not/there"),
        (model_folder, "abacus", "--device abacus"),
    ):
        assert main(["find", "red", "--model", model, "--device", device, "--videos", str(clips)]) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("hcmi find: error:")
        assert message in last


def test_queries_may_come_after_two_dashes(model_folder, clips, capsys):
    arguments = ["find", "--model", model_folder, "--device", "cpu", "--videos", str(clips / "b.mp4"), "--", "red"]
    assert main(arguments) == 0
    assert "b.mp4" in capsys.readouterr().out
