import json
import os
import random
import signal
import time
from pathlib import Path

import killed_indexing
import pytest
import torch
from saved_hcmi import save_tiny_hcmi, write_video
from transformers import pipeline
from videos import Recipe
from videos import write_video as write_recipe

from hcmi.modeling_hcmi import HCMIVideoFeatures
from hcmi.processing import HCMIProcessor
from hcmi.retrieval import VideoIndex
from hcmi.retrieval.indexing import run
from hcmi.retrieval.indexing.report import IndexReport
from hcmi.retrieval.indexing.window_encoding import WindowEncoder
from hcmi.retrieval.indexing.windows import WindowRule, cut

SECONDS = 0.5
CUT = WindowRule("fixed", SECONDS, least=0.0, whole_up_to=SECONDS)
KILLS = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_tiny_hcmi(tmp_path_factory.mktemp("model"))


@pytest.fixture
def videos(tmp_path) -> Path:
    folder = tmp_path / "videos"
    for number in range(5):
        write_video(folder / f"{number}.mp4", frames=8 + number, seed=number)
    return folder


@pytest.fixture
def index(model, tmp_path):
    with VideoIndex.create(tmp_path / "index", model, precision="float32", device="cpu") as index:
        yield index


def add(index: VideoIndex, *places, **options) -> IndexReport:
    return index.add(list(places), **{"num_workers": 0, "progress": False, "rule": CUT} | options)


def rows(index: VideoIndex) -> dict[str, dict[str, torch.Tensor]]:
    """All that an index has of every file that is indexed to its end, by its path."""
    found = {}
    for video in index:
        if video.state != "indexed":
            continue
        read = index.read(video.path)
        windows = index.windows(video.path)
        assert read.video_spans.tolist() == [[window.start, window.end] for window in windows]
        features = {name: read.features[name] for name in HCMIVideoFeatures.retrieval_fields}
        found[video.path] = features | {"timestamps": read.timestamps.nan_to_num(-1)}
    return found


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        torch.allclose(first[path][name].float(), second[path][name].float(), atol=1e-5)
        for path in first
        for name in first[path]
    )


def states(index: VideoIndex) -> dict[str, str]:
    return {Path(video.path).name: video.state for video in index}


def nothing_is_read(monkeypatch) -> None:
    def refuse(*_):
        raise AssertionError("a file is read")

    monkeypatch.setattr(run, "do_job", refuse)


def test_every_window_is_what_the_pipeline_encodes(index, videos, model):
    report = add(index, videos)
    assert (report.finished, report.videos, report.new, report.encoded) == (True, 5, 5, 5)
    encode = pipeline("text-video-retrieval", model=model, device="cpu")
    processor = HCMIProcessor.from_pretrained(model)
    total = 0
    for path in sorted(videos.iterdir()):
        windows = cut(str(path), CUT, processor)
        inputs = [
            processor(videos=[str(path)], start=window.start, end=window.end, uint8=True, return_tensors="pt")
            for window in windows
        ]
        batch = {name: torch.cat([one[name] for one in inputs]) for name in inputs[0]}
        with torch.no_grad():
            expected = encode.model.get_video_features(batch["pixel_values_videos"], batch["video_mask"])
        read = index.read(path)
        assert index.windows(path) == windows
        assert torch.equal(read.features.frame_mask, expected.frame_mask)
        for name in ("pooler_output", "frames", "clips"):
            cosines = torch.cosine_similarity(read.features[name], expected[name], dim=-1)
            assert cosines[cosines != 0].min() > 0.9999  # padding has no length
        total += len(windows)
    assert report.windows == total > 5
    index.verify()


def test_short_videos_are_searched_with_the_scores_and_moments_of_the_pipeline(index, videos, model):
    add(index, videos, rule=WindowRule())
    paths = sorted(map(str, videos.iterdir()))
    for query in ("a red ring slides left", "two blue squares"):
        expected = pipeline("text-video-retrieval", model=model, device="cpu")(query, videos=paths, top_k=5)
        hits = index.search(query, top_k=5).hits
        assert [hit.video for hit in hits] == [hit["video"] for hit in expected]
        for hit, other in zip(hits, expected, strict=True):
            assert (hit.score, hit.start, hit.end) == pytest.approx(
                (other["score"], other["start"], other["end"]), abs=1e-4
            )


def test_reader_processes_give_the_same(index, videos, model, tmp_path):
    (videos / "broken.mp4").write_bytes(b"nothing" * 99)
    add(index, videos)
    with VideoIndex.create(tmp_path / "other", model, precision="float32", device="cpu") as other:
        report = add(other, videos, num_workers=2, batch_size=3, hash=True)
        assert same(rows(other), rows(index))
        assert states(other) == states(index)
        assert list(report.unreadable) == [str(videos / "broken.mp4")]


def test_what_is_unchanged_is_not_read_again(index, videos, monkeypatch):
    add(index, videos)
    before = rows(index)
    nothing_is_read(monkeypatch)
    report = add(index, videos)
    assert (report.unchanged, report.encoded, report.windows) == (5, 0, 0)
    assert same(rows(index), before)


def test_new_and_changed_files_are_read_and_removed_ones_reported(index, videos):
    add(index, videos)
    write_video(videos / "new.mp4", frames=9, seed=9)
    write_video(videos / "0.mp4", frames=25, seed=8)
    (videos / "1.mp4").unlink()
    report = add(index, videos)
    assert (report.unchanged, report.new, report.changed) == (3, 1, 1)
    assert (report.removed, report.deleted) == ([str(videos / "1.mp4")], False)
    assert len(index) == 6
    assert index.windows(videos / "0.mp4")[-1].end == 2.5

    report = add(index, videos, remove_missing=True)
    assert (report.removed, report.deleted) == ([str(videos / "1.mp4")], True)
    assert len(index) == 5 and videos / "1.mp4" not in index
    assert add(index, videos).removed == []


def test_files_of_other_folders_are_not_missed(index, videos, tmp_path):
    add(index, videos)
    write_video(tmp_path / "more" / "a.mp4", frames=9)
    (videos / "1.mp4").unlink()
    assert add(index, tmp_path / "more", remove_missing=True).removed == []
    assert len(index) == 6


def test_with_hashes_content_is_known_under_another_time_or_name(index, videos, monkeypatch):
    add(index, videos, hash=True)
    before = rows(index)
    os.utime(videos / "0.mp4", ns=(1, 1))
    (videos / "1.mp4").rename(videos / "renamed.mp4")
    (videos / "copy.mp4").write_bytes((videos / "2.mp4").read_bytes())
    encoded = []
    monkeypatch.setattr(WindowEncoder, "add", lambda *_: encoded.append(_))
    report = add(index, videos, hash=True)
    assert not encoded
    assert {(update.old, update.new) for update in report.updates} == {
        (str(videos / "0.mp4"), str(videos / "0.mp4")),
        (str(videos / "1.mp4"), str(videos / "renamed.mp4")),
    }
    assert report.copies == {str(videos / "copy.mp4"): str(videos / "2.mp4")}
    assert report.removed == []
    before[str(videos / "renamed.mp4")] = before.pop(str(videos / "1.mp4"))
    assert same(rows(index), before)
    assert add(index, videos).unchanged == 5


def test_of_several_new_files_of_one_content_one_is_encoded(index, videos, model):
    (videos / "copy.mp4").write_bytes((videos / "2.mp4").read_bytes())
    report = add(index, videos, hash=True)
    assert (report.new, report.copies) == (5, {str(videos / "copy.mp4"): str(videos / "2.mp4")})


def test_a_changed_file_with_other_content_is_encoded_with_hashes_too(index, videos):
    add(index, videos, hash=True)
    write_video(videos / "0.mp4", frames=25, seed=8)
    report = add(index, videos, hash=True)
    assert (report.changed, report.unchanged, report.updates) == (1, 4, [])
    assert index.windows(videos / "0.mp4")[-1].end == 2.5


def test_files_that_cannot_be_read_are_listed_and_stop_nothing(index, videos, monkeypatch):
    (videos / "broken.mp4").write_bytes(b"nothing" * 99)
    (videos / "empty.avi").touch()
    report = add(index, videos)
    assert report.new == 5
    assert report.unreadable.keys() == {str(videos / "broken.mp4"), str(videos / "empty.avi")}
    assert "not a video" in report.unreadable[str(videos / "broken.mp4")]
    assert index.get(videos / "empty.avi").reason == report.unreadable[str(videos / "empty.avi")] == "empty"
    written = json.loads((index.path / "report.json").read_text())
    assert written["unreadable"] == report.unreadable
    assert written["finished"] is True

    with monkeypatch.context() as patched:
        nothing_is_read(patched)
        again = add(index, videos)
    assert (again.unreadable, again.not_tried) == (report.unreadable, 2)
    retried = add(index, videos, retry=True)
    assert (retried.unreadable, retried.not_tried) == (report.unreadable, 0)

    write_video(videos / "broken.mp4", frames=9)
    mended = add(index, videos)
    assert mended.changed == 1 and list(mended.unreadable) == [str(videos / "empty.avi")]
    assert states(index)["broken.mp4"] == "indexed"


def test_a_file_that_can_no_longer_be_read_cannot_be_found(index, videos):
    add(index, videos)
    (videos / "0.mp4").write_bytes(b"nothing" * 99)
    assert list(add(index, videos).unreadable) == [str(videos / "0.mp4")]
    assert len(index) == 4
    index.verify()


def test_a_damaged_file_is_indexed_and_listed(index, tmp_path):
    path = write_recipe(tmp_path / "cut.avi", Recipe(".avi", codec="mpeg4", b_frames=0))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = add(index, path)
    assert report.new == 1 and list(report.damaged) == [str(path)] and not report.unreadable
    assert index.get(path).file.duration < 2


def test_names_that_are_not_utf8_are_listed(index, videos):
    os.rename(os.fsencode(videos / "0.mp4"), os.fsencode(videos) + b"/caf\xe9.mp4")
    report = add(index, videos)
    assert report.new == 4
    assert report.unreadable == {str(videos / "caf\ufffd.mp4"): "its name is not UTF-8: rename it"}


def test_many_windows_of_one_file_are_read_in_pieces(index, videos):
    path = write_video(videos / "long.mp4", frames=400, seed=1)
    report = add(index, path, rule=WindowRule("fixed", 0.5, least=0.0, whole_up_to=1))
    assert report.windows == 80
    (read,) = rows(index).values()
    assert len(read["pooler_output"]) == 80
    assert index.get(path).file.duration == 40.0


def test_batches_go_across_files(index, videos, monkeypatch):
    sizes = []
    encode = index.model.get_video_features

    def counted(pixel_values_videos, video_mask):
        sizes.append(len(video_mask))
        return encode(pixel_values_videos, video_mask)

    monkeypatch.setattr(index.model, "get_video_features", counted)
    add(index, videos, rule=WindowRule(), batch_size=3)
    assert sizes == [3, 2]


@pytest.mark.parametrize(("size", "batches"), [(3, 1), (4, 2)])
def test_after_ctrl_c_the_same_call_goes_on(index, videos, size, batches, monkeypatch):
    encode, taken = WindowEncoder._encode, []

    def interrupted(self, count):
        if len(taken) == batches:
            raise KeyboardInterrupt
        taken.append(count)
        encode(self, count)

    with monkeypatch.context() as patched:
        patched.setattr(WindowEncoder, "_encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            add(index, videos, batch_size=size)
    assert json.loads((index.path / "report.json").read_text())["finished"] is False
    assert index.info.windows == size * batches  # what was encoded is there
    done = {path for path, state in states(index).items() if state == "indexed"}
    report = add(index, videos, batch_size=size)
    assert report.unchanged == len(done) and report.encoded == 5 - len(done)
    assert report.continued == 1
    total = sum(len(index.windows(path)) for path in videos.iterdir())
    assert report.windows == total - size * batches
    assert set(states(index).values()) == {"indexed"}


@pytest.mark.parametrize(
    ("videos", "options", "message"),
    [
        ([], {}, "no videos"),
        (["missing"], {}, "no file or folder missing"),
        (["https://example.org/a.mp4"], {}, "is a URL"),
        ("folder", {}, "has to be a list"),
        (["."], {"batch_size": 0}, "`batch_size`"),
        (["."], {"num_workers": -1}, "`num_workers`"),
        (["."], {"reader_timeout": 0}, "`reader_timeout`"),
    ],
)
def test_impossible_calls_are_refused(index, videos, options, message):
    with pytest.raises(ValueError, match=message):
        index.add(videos, **options)


def test_an_index_that_is_open_for_reading_takes_nothing(index, videos):
    with VideoIndex.open(index.path, device="cpu") as reader, pytest.raises(ValueError, match="write=True"):
        add(reader, videos)


def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(model, tmp_path):
    videos = tmp_path / "videos"
    for number in range(6):
        write_video(videos / f"{number}.mp4", frames=6 + 4 * number, seed=number)
    write_video(videos / "long.mp4", frames=300, seed=7)

    def indexed(place: Path) -> dict:
        process = killed_indexing.start(place, model, videos, SECONDS)
        process.join()
        assert process.exitcode == 0, place.with_suffix(".log").read_text()
        with VideoIndex.open(place, device="cpu") as index:
            index.verify()
            assert set(states(index).values()) == {"indexed"}
            found = rows(index)
            result = index.search("a red ring", top_k=20, exact=True)
            assert sorted(hit.video for hit in result.hits) == sorted(found)
            assert result.windows == sum(len(one["timestamps"]) for one in found.values())
            return found

    expected = indexed(tmp_path / "first")  # with which everything is imported that the others need
    began = time.monotonic()
    assert same(indexed(tmp_path / "second"), expected)
    seconds = time.monotonic() - began

    dice, kills, finished, begun = random.Random(0), 0, 0, 0
    while kills < KILLS:
        place = tmp_path / str(finished)
        process = killed_indexing.start(place, model, videos, SECONDS)
        process.join(dice.uniform(0, 0.5 * seconds))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), place.with_suffix(".log").read_text()
        if process.exitcode == 0:
            finished += 1
            continue
        kills += 1
        if (place / "catalog.sqlite").exists():
            with VideoIndex.open(place, device="cpu") as index:
                index.verify()
                found = rows(index)
                assert same(found, {path: expected[path] for path in found})
                begun += "partial" in states(index).values()
    assert same(indexed(tmp_path / str(finished)), expected)
    assert begun > 0
