import errno
import json
import multiprocessing
import os
import sqlite3

import numpy as np
import pytest
import torch
from encoded import random_encoded
from random_features import random_text_features
from saved_hcmi import save_tiny_hcmi, write_video

from hcmi.modeling_hcmi import HCMIModel
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.processing import HCMIProcessor
from hcmi.retrieval import EncodedVideos, VideoIndex, VideoIndexError
from hcmi.retrieval.index import stored_index
from hcmi.retrieval.index.catalog import Catalog, FileState
from hcmi.retrieval.index.search import SearchDepth
from hcmi.retrieval.index.window import Window

WIDTH = 24  # of the tiny model
STATE = FileState(size=1, mtime_ns=2)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    return save_tiny_hcmi(tmp_path_factory.mktemp("model"))


@pytest.fixture
def index(model_folder, tmp_path):
    with VideoIndex.create(tmp_path / "index", model_folder, precision="float32", device="cpu") as made:
        yield made


def fill(index: VideoIndex, files: dict[str, int], seed: int = 0) -> EncodedVideos:
    """Adds files of so many random windows each, in one go; the windows in the order of their rows."""
    places = [(path, number) for path, count in files.items() for number in range(count)]
    windows = random_encoded([1 + i % 6 for i in range(len(places))], WIDTH, seed)
    for path, count in files.items():
        index.begin_file(path, STATE, [Window(n, 10.0 * n, 10.0 * n + 10) for n in range(count)])
    index.append(windows, places)
    return windows


def plain(hits) -> list[tuple]:
    """Hits without the last digits, in which a score depends on those that are computed beside it."""
    return [(h.video, h.window, h.start, h.end, round(h.score, 4), plain(h.others)) for h in hits]


def by_brute_force(index: VideoIndex, windows: EncodedVideos, owners: list[str], text) -> list[tuple[str, float]]:
    """Every window scored, every video by its best one."""
    scores = blockwise_similarity(text, windows.features, index.level_weights).combined[0].tolist()
    best = {owner: max(s for s, o in zip(scores, owners, strict=True) if o == owner) for owner in owners}
    return sorted(best.items(), key=lambda pair: -pair[1])


def test_every_search_is_that_of_brute_force_and_groups_by_video(index):
    files = {f"/v/{i}.mp4": 1 + i % 3 for i in range(40)}
    windows = fill(index, files)
    owners = [path for path, count in files.items() for _ in range(count)]
    assert len(index) == 40 and index.info.windows == len(owners)
    for seed in range(8):
        text = random_text_features([5], WIDTH, seed)
        expected = by_brute_force(index, windows, owners, text)
        exact = index.search_features(text, top_k=40, exact=True)
        assert [hit.video for hit in exact.hits] == [video for video, _ in expected]
        assert exact.exact and exact.rescored == len(owners)
        np.testing.assert_allclose([hit.score for hit in exact.hits], [score for _, score in expected], atol=1e-6)
        staged = index.search_features(text, top_k=3, depth=SearchDepth(nearest=80, rescored=80))
        assert plain(staged.hits) == plain(index.search_features(text, top_k=3, exact=True).hits)
        for hit in exact.hits:
            assert len(hit.others) == files[hit.video] - 1
            assert all(other.video == hit.video and other.score <= hit.score for other in hit.others)
            assert 0 <= hit.start < hit.end <= 6


def test_a_search_goes_deeper_until_it_has_enough_videos(index):
    fill(index, {"/v/long.mp4": 50, "/v/a.mp4": 1, "/v/b.mp4": 1, "/v/c.mp4": 1})
    result = index.search_features(random_text_features([5], WIDTH), top_k=4, depth=SearchDepth(2, 1))
    assert len(result.hits) == 4 and result.rescored > 1
    assert len(index.search_features(random_text_features([5], WIDTH), top_k=9).hits) == 4


def test_what_is_deleted_is_not_found_and_compacting_gives_its_space_back(index):
    fill(index, {"/v/a.mp4": 2, "/v/b.mp4": 2, "/v/c.mp4": 1})
    text = random_text_features([5], WIDTH)
    before = plain(index.search_features(text, top_k=3, exact=True).hits)
    size = index.info.bytes
    assert index.delete(["/v/a.mp4", "/v/unknown.mp4"]) == 1
    assert "/v/a.mp4" not in index and "/v/b.mp4" in index and len(index) == 2
    for compacted in (False, True):
        if compacted:
            index.compact()
            assert index.info.dead == 0 and index.info.bytes < size
        for options in ({"exact": True}, {"depth": SearchDepth(1, 1)}):
            found = plain(index.search_features(text, top_k=3, **options).hits)
            assert found == [hit for hit in before if hit[0] != "/v/a.mp4"]
    fill(index, {"/v/a.mp4": 3}, seed=5)  # rows go on after a compaction
    assert len(index.search_features(text, top_k=3).hits) == 3
    index.verify()


def test_a_file_is_partial_until_its_last_window_and_a_new_version_replaces_it(index):
    windows = [Window(0, 0.0, 5.0), Window(1, 5.0, 9.0)]
    index.begin_file("/v/a.mp4", STATE, windows)
    assert len(index) == 0 and index.get("/v/a.mp4").state == "partial"
    index.append(random_encoded([3], WIDTH), [("/v/a.mp4", 1)])
    assert index.windows("/v/a.mp4", missing=True) == windows[:1]
    assert [hit.window for hit in index.search_features(random_text_features([3], WIDTH)).hits] == windows[1:]
    with pytest.raises(VideoIndexError, match=r"Window 1 of /v/a.mp4 is not waiting"):
        index.append(random_encoded([3], WIDTH), [("/v/a.mp4", 1)])
    index.append(random_encoded([4], WIDTH), [("/v/a.mp4", 0)])
    assert index.get("/v/a.mp4").state == "indexed" and index.info.partial == 0
    index.mark_unreadable("/v/a.mp4", STATE, "truncated")
    assert index.get("/v/a.mp4").reason == "truncated" and len(index) == 0
    assert index.search_features(random_text_features([3], WIDTH)).hits == []
    assert [video.state for video in index] == ["unreadable"]


def test_texts_and_examples_give_what_the_model_gives(model_folder, index, tmp_path):
    model, processor = HCMIModel.from_pretrained(model_folder), HCMIProcessor.from_pretrained(model_folder)
    paths = [write_video(tmp_path / f"{i}.mp4", 12 + 3 * i, seed=i) for i in range(4)]
    with torch.no_grad():
        inputs = processor(videos=paths, return_tensors="pt")
        features = model.get_video_features(inputs["pixel_values_videos"], inputs["video_mask"])
        text = model.get_text_features(**processor(text=["a red ring"], return_tensors="pt"))
    for path in paths:
        index.begin_file(path, STATE, [Window(0, 0.0, 1.0)])
    windows = EncodedVideos(paths, features.select(slice(None)), inputs["timestamps"], inputs["video_spans"])
    index.append(windows, [(path, 0) for path in paths])
    expected = model.score(text, features)
    hits = index.search("a red ring", top_k=4).hits
    assert {hit.video for hit in hits} == set(paths)
    for hit in hits:
        column = paths.index(hit.video)
        assert hit.score == pytest.approx(expected.combined[0, column].item(), abs=1e-5)
        assert hit.level_scores == pytest.approx(
            {name: expected[name][0, column].item() for name in hit.level_scores}, abs=1e-5
        )
    like = index.search(video=paths[2], top_k=4).hits
    assert like[0].video == paths[2] and like[0].score == pytest.approx(1.0, abs=1e-5)


def test_what_cannot_be_searched_is_told(index):
    for wrong in ({}, {"query": "a", "video": "b.mp4"}, {"query": " "}, {"query": 3}):
        with pytest.raises(ValueError, match="query"):
            index.search(**wrong)
    text = random_text_features([3], WIDTH)
    assert index.search_features(text).hits == []
    with pytest.raises(ValueError, match="top_k"):
        index.search_features(text, top_k=0)
    with pytest.raises(ValueError, match="depth"):
        index.search_features(text, exact=True, depth=SearchDepth())
    with pytest.raises(ValueError, match="rescored"):
        SearchDepth(10, 11)


def test_readers_beside_a_writer_see_what_is_committed(index):
    with VideoIndex.open(index.path) as one, VideoIndex.open(index.path) as two:
        text = random_text_features([5], WIDTH)
        for round_ in range(3):
            fill(index, {f"/v/{round_}-{i}.mp4": 1 for i in range(4)}, seed=round_)
            for reader in (one, two):
                assert len(reader) == 4 * (round_ + 1)
                expected = plain(index.search_features(text, top_k=20, exact=True).hits)
                assert plain(reader.search_features(text, top_k=20, exact=True).hits) == expected
            if round_ == 1:
                index.delete(["/v/0-0.mp4"])
                index.compact()
                assert len(one.search_features(text, top_k=20).hits) == 7
                fill(index, {"/v/0-0.mp4": 1})
        with pytest.raises(VideoIndexError, match="open for reading"):
            one.delete(["/v/0-1.mp4"])


def _open_to_write(path, answer):
    try:
        VideoIndex.open(path, write=True).close()
        answer.put("opened")
    except VideoIndexError as error:
        answer.put(str(error))


def test_a_second_writer_is_refused_until_the_first_has_ended(index):
    context = multiprocessing.get_context("fork")
    for expected in ("Another process is writing", "opened"):
        answer = context.Queue()
        process = context.Process(target=_open_to_write, args=(index.path, answer))
        process.start()
        assert expected in answer.get(timeout=60)
        process.join()
        index.close()


def test_a_write_that_was_cut_off_leaves_no_trace(index, monkeypatch):
    fill(index, {"/v/a.mp4": 2})
    index.begin_file("/v/b.mp4", STATE, [Window(0, 0.0, 1.0), Window(1, 1.0, 2.0)])

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "place", fail)
        with pytest.raises(KeyboardInterrupt):
            index.append(random_encoded([2, 2], WIDTH), [("/v/b.mp4", 0), ("/v/b.mp4", 1)])
    assert index.info.windows == 2
    index.append(random_encoded([6], WIDTH, seed=9), [("/v/b.mp4", 1)])
    index.verify()
    assert index.info.windows == 3 and index.get("/v/b.mp4").state == "partial"


def test_a_full_disk_is_told_and_nothing_committed_is_lost(index, monkeypatch):
    fill(index, {"/v/a.mp4": 2})
    index.begin_file("/v/b.mp4", STATE, [Window(0, 0.0, 1.0)])

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            index.append(random_encoded([2], WIDTH), [("/v/b.mp4", 0)])
        index.delete(["/v/a.mp4"])
        with pytest.raises(OSError, match="No space left"):
            fill(index, {"/v/c.mp4": 1})
            index.compact()
    index.verify()
    index.append(random_encoded([2], WIDTH), [("/v/b.mp4", 0)])
    assert [hit.video for hit in index.search_features(random_text_features([3], WIDTH)).hits] == ["/v/b.mp4"]


def test_an_index_of_another_model_is_refused_with_both_names(index, model_folder, tmp_path):
    other, processor = HCMIModel.from_pretrained(model_folder), HCMIProcessor.from_pretrained(model_folder)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.02)
    other.save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    with pytest.raises(VideoIndexError) as refused:
        VideoIndex.open(index.path, model=tmp_path / "other", device="cpu")
    assert model_folder in str(refused.value) and str(tmp_path / "other") in str(refused.value)
    half = HCMIModel.from_pretrained(model_folder, dtype=torch.bfloat16)
    VideoIndex.open(index.path, model=half, processor=processor).close()
    with pytest.raises(ValueError, match="processor"):
        VideoIndex.open(index.path, model=half)


def test_a_damaged_index_says_so(index, tmp_path):
    fill(index, {f"/v/{i}.mp4": 1 for i in range(3)})
    path, text = index.path, random_text_features([3], WIDTH)
    index.close()
    records = path / "vectors-000001" / "records.bin"
    whole = records.read_bytes()

    records.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with VideoIndex.open(path) as reader:
        for read in (reader.verify, lambda: reader.search_features(text)):
            with pytest.raises(VideoIndexError, match="damaged"):
                read()
    records.write_bytes(whole[:-1])
    with VideoIndex.open(path) as reader, pytest.raises(VideoIndexError, match=r"records.bin has \d+ bytes"):
        reader.search_features(text)
    records.unlink()
    with VideoIndex.open(path) as reader, pytest.raises(VideoIndexError, match="lacks its files"):
        reader.search_features(text)
    records.write_bytes(whole)

    catalog = path / "catalog.sqlite"
    good = catalog.read_bytes()
    catalog.write_bytes(b"no database at all" * 100)
    with pytest.raises(VideoIndexError, match="damaged"):
        VideoIndex.open(path)
    catalog.write_bytes(good)
    with sqlite3.connect(catalog) as database:
        database.execute("UPDATE facts SET value = ? WHERE name = 'format'", (json.dumps(99),))
    with pytest.raises(VideoIndexError, match="format 99"):
        VideoIndex.open(path)
    with pytest.raises(VideoIndexError, match="There is no index"):
        VideoIndex.open(tmp_path / "nowhere")


def test_what_is_noted_together_is_there_at_once_or_not_at_all(index):
    with VideoIndex.open(index.path) as reader:
        with index.together():
            for name in "abc":
                index.begin_file(f"/v/{name}.mp4", STATE, [Window(0, 0.0, 1.0)])
                assert list(reader) == []
        assert [video.path for video in reader] == ["/v/a.mp4", "/v/b.mp4", "/v/c.mp4"]
        with pytest.raises(KeyboardInterrupt), index.together():
            index.delete(["/v/a.mp4"])
            index.append(random_encoded([2], WIDTH), [("/v/b.mp4", 0)])
            raise KeyboardInterrupt
        assert len(list(reader)) == 3 and reader.get("/v/b.mp4").state == "partial"
        with pytest.raises(VideoIndexError, match="open for reading"), reader.together():
            pass
    fill(index, {"/v/d.mp4": 1})
    index.verify()
    assert index.info.windows == 1


def test_merging_takes_over_files_windows_and_states(index, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_index, "_MERGED_AT_ONCE", 3)
    fill(index, {"/v/a.mp4": 1, "/v/b.mp4": 1})
    with VideoIndex.create(tmp_path / "part", model_folder, precision="float32", device="cpu") as part:
        fill(part, {"/v/b.mp4": 2, "/v/c.mp4": 1}, seed=3)
        part.mark_unreadable("/v/d.mp4", STATE, "empty")
        part.begin_file("/v/e.mp4", STATE, [Window(0, 0.0, 1.0)])
        assert index.merge(part) == 4
        for path in ("/v/b.mp4", "/v/c.mp4"):
            assert torch.equal(index.read(path).features.frames, part.read(path).features.frames)
    states = {video.path: (video.state, video.windows) for video in index}
    assert states == {
        "/v/a.mp4": ("indexed", 1),
        "/v/b.mp4": ("indexed", 2),
        "/v/c.mp4": ("indexed", 1),
        "/v/d.mp4": ("unreadable", 0),
        "/v/e.mp4": ("partial", 1),
    }
    index.verify()
    coarse = VideoIndex.create(tmp_path / "int8", model_folder, device="cpu")
    with coarse, pytest.raises(VideoIndexError, match="cannot be joined"):
        index.merge(coarse)


def test_an_index_is_made_only_where_there_is_none(index, model_folder):
    with pytest.raises(VideoIndexError, match="Another process is writing"):
        VideoIndex.create(index.path, model_folder, device="cpu")
    index.close()
    with pytest.raises(VideoIndexError, match="already"):
        VideoIndex.create(index.path, model_folder, device="cpu")


def test_files_are_renamed_with_their_windows(index):
    fill(index, {"/v/a.mp4": 1, "/v/b.mp4": 1})
    index.update_file("/v/a.mp4", "/v/b.mp4", FileState(1, 77, "digest"))
    assert [video.path for video in index] == ["/v/b.mp4"]
    assert index.get("/v/b.mp4").file.mtime_ns == 77 and index.find_digest("digest").path == "/v/b.mp4"
    assert len(index.search_features(random_text_features([3], WIDTH)).hits) == 1


def test_an_index_that_is_relative_is_moved_together_with_its_videos(model_folder, tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    options = {"precision": "float32", "relative": True, "device": "cpu"}
    with VideoIndex.create(before / "index", model_folder, **options) as made:
        fill(made, {str(before / "videos" / "a.mp4"): 1, str(before / "index" / "b.mp4"): 1})
    before.rename(after)
    with VideoIndex.open(after / "index", device="cpu") as moved:
        hits = moved.search_features(random_text_features([3], WIDTH)).hits
        assert {hit.video for hit in hits} == {str(after / "videos" / "a.mp4"), str(after / "index" / "b.mp4")}
        assert {video.path for video in moved} == {hit.video for hit in hits}
        assert str(after / "videos" / "a.mp4") in moved and str(before / "videos" / "a.mp4") not in moved
        assert moved.read(after / "videos" / "a.mp4").names == [str(after / "videos" / "a.mp4")]
