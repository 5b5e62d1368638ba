import subprocess
import sys

import datasets
import pytest
from miniature_benchmarks import FORMS, expect_miniature_counts, write_miniature

from hcmi.processing.video_reading import read_frames
from hcmi.train.data.benchmark_info import benchmark_info
from hcmi.train.data.benchmarks import BENCHMARKS, SPLITS, load_benchmark, protocols, read_annotations
from hcmi.train.data.shape_stories import write_shape_stories

DEFAULTS = {
    "shape_stories": "decoys",
    "msrvtt": "1k-A-9k",
    "msvd": "official",
    "lsmdc": "challenge-1000",
    "didemo": "paragraph",
    "activitynet": "val_1",
    "folder": "own",
}


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    sizes = {"train": 6, "validation": 2, "test": 4}
    return write_shape_stories(tmp_path_factory.mktemp("stories") / "data", 3, sizes, workers=1, progress=False)


def test_names_and_first_protocols():
    assert {name: next(iter(entry.protocols)) for name, entry in BENCHMARKS.items()} == DEFAULTS
    for name, entry in BENCHMARKS.items():
        assert protocols(name) == entry.protocols
        for protocol in entry.protocols.values():
            assert set(protocol.splits) <= set(SPLITS) and {"train", "test"} <= set(protocol.splits)
            assert 20 < len(protocol.description) < 130


def test_names_are_known_without_loading_anything_heavy():
    code = (
        "import sys, hcmi.train.data.benchmarks as b; assert len(b.BENCHMARKS) == 7; "
        "assert not {'datasets', 'pandas', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("name", "form"), [(name, form) for name, forms in FORMS.items() for form in forms])
def test_every_benchmark_in_every_form(tmp_path, monkeypatch, name, form):
    miniature = write_miniature(name, tmp_path / name, form, decodable=False)
    expect_miniature_counts(monkeypatch, miniature)
    for protocol, known in protocols(name).items():
        for split in known.splits:
            place = {"annotations": miniature.annotations, "protocol": protocol}
            dataset = load_benchmark(name, split, **place, videos=miniature.videos, cache_dir=tmp_path / "cache")
            info = benchmark_info(dataset)
            assert (info.benchmark, info.split, info.protocol, info.complete) == (name, split, protocol, True)
            assert (info.videos, info.captions) == miniature.counts[protocol, split]
            assert (len(dataset), sum(map(len, dataset["captions"]))) == (info.videos, info.captions)
            annotations = read_annotations(name, split, **place)
            assert dataset["video_id"] == [annotation.video_id for annotation in annotations]
            assert dataset["captions"] == [list(annotation.captions) for annotation in annotations]
            assert len(set(dataset["video"])) == len(dataset)


@pytest.mark.parametrize("name", FORMS)
def test_the_files_can_be_decoded(tmp_path, monkeypatch, name):
    miniature = write_miniature(name, tmp_path / name)
    expect_miniature_counts(monkeypatch, miniature)
    for row in load_benchmark(name, "test", **miniature.place, cache_dir=tmp_path / "cache"):
        read = read_frames(row["video"], lambda start, end: [start, end], start=row["start"], end=row["end"])
        assert read.frames.shape[-2:] == (32, 48)


def test_shape_stories_carries_its_protocol_and_counts(stories, tmp_path):
    for streaming in (False, True):
        dataset = load_benchmark("shape_stories", "test", annotations=stories, streaming=streaming)
        info = benchmark_info(dataset)
        assert (info.benchmark, info.split, info.protocol) == ("shape_stories", "test", "decoys")
        assert (info.videos, info.captions, info.expected_videos, info.complete) == (4, 12, None, True)
        assert dataset.info.config_name == "decoys" and dataset.column_names[-1] == "events"
    assert isinstance(dataset, datasets.IterableDataset)
    stored = load_benchmark("shape_stories", "test", annotations=stories, cache_dir=tmp_path / "cache")
    assert stored.to_list() == list(dataset)
    assert str(tmp_path / "cache") in stored.cache_files[0]["filename"]
    annotations = read_annotations("shape_stories", "test", stories)
    assert [list(annotation.captions) for annotation in annotations] == stored["captions"]


def test_shape_stories_has_no_other_folder_of_videos(stories):
    with pytest.raises(ValueError, match="shape_stories has its videos beside its annotations"):
        load_benchmark("shape_stories", "test", annotations=stories, videos=stories)


def test_a_first_call_writes_shape_stories(tmp_path, monkeypatch):
    from hcmi.train.data import shape_stories

    monkeypatch.setattr(shape_stories, "DEFAULT_SIZES", {"test": 2})
    monkeypatch.setattr(shape_stories, "HF_HOME", str(tmp_path))
    assert len(load_benchmark("shape_stories", "test")) == 2
    assert shape_stories.default_folder().is_dir()


def test_unknown_names_are_refused(stories):
    with pytest.raises(ValueError, match=r"no benchmark 'shapes': choose one of activitynet, .*shape_stories"):
        load_benchmark("shapes", "test", annotations=stories)
    with pytest.raises(ValueError, match="no split 'dev': choose one of train, validation, test"):
        load_benchmark("shape_stories", "dev", annotations=stories)
    with pytest.raises(ValueError, match=r"msrvtt has no protocol '1k-B': choose one of 1k-A-9k, 1k-A-7k, full"):
        read_annotations("msrvtt", "test", stories, "1k-B")


@pytest.mark.parametrize("protocol", ["val_1", "val_2"])
def test_a_split_that_the_protocol_lacks_is_refused_with_the_way_out(tmp_path, protocol):
    for call in (read_annotations, load_benchmark):
        with pytest.raises(ValueError, match=rf"activitynet, {protocol} has no validation split.*--choose last"):
            call("activitynet", "validation", annotations=tmp_path, protocol=protocol)
