import json
import pickle
from dataclasses import replace

import datasets
import pytest

from hcmi.train.data.benchmark_info import BenchmarkInfo, benchmark_info

INFO = BenchmarkInfo("msvd", "test", "official", "Every sentence.", 670, 27_763, (670, 670), (27_763, 27_763))


@pytest.fixture
def dataset() -> datasets.Dataset:
    made = datasets.Dataset.from_dict({"video_id": list("abcd")})
    made.info.description = INFO.to_json()
    return made


def test_it_travels_with_the_data_set(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "saved")
    stream = dataset.to_iterable_dataset()
    stream.info.description = dataset.info.description
    copies = {
        "itself": dataset,
        "selected": dataset.select([2, 0]),
        "mapped": dataset.map(lambda row: {"length": len(row["video_id"])}),
        "filtered": dataset.filter(lambda row: row["video_id"] != "a"),
        "shuffled": dataset.shuffle(seed=1),
        "formatted": dataset.with_format("numpy"),
        "fewer columns": dataset.select_columns(["video_id"]),
        "pickled": pickle.loads(pickle.dumps(dataset)),
        "saved": datasets.load_from_disk(tmp_path / "saved"),
        "streamed": stream,
        "mapped stream": stream.map(lambda row: row | {"length": 1}).filter(lambda row: True),
        "shuffled stream": stream.shuffle(seed=1).take(2),
    }
    assert {name: benchmark_info(copy) for name, copy in copies.items()} == dict.fromkeys(copies, INFO)


def test_other_data_sets_are_refused(dataset):
    for description in ("", "Some words.", "[1]", json.dumps({"benchmark": "msvd"}), "null"):
        dataset.info.description = description
        with pytest.raises(ValueError, match="must come from load_benchmark"):
            benchmark_info(dataset)


def test_complete_is_all_or_nothing():
    assert INFO.complete and INFO.wrong_counts == []
    assert str(INFO) == "msvd test, official: 670 videos, 27,763 captions"
    assert replace(INFO, videos=1, captions=1, expected_videos=None, expected_captions=None).complete
    for flaw in ({"missing": 1}, {"videos": 669}, {"videos": 671}, {"captions": 1}):
        assert not replace(INFO, **flaw).complete
    line = str(replace(INFO, videos=660, captions=27_000, missing=10))
    assert line == (
        "msvd test, official: 660 videos, 27,000 captions. NOT COMPLETE: 10 videos missing; 660 videos, expected 670; "
        "27,000 captions, expected 27,763"
    )


def test_a_range_holds_its_ends():
    ranged = replace(INFO, expected_videos=(8_392, 8_395), expected_captions=None)
    right = [count for count in range(8_380, 8_400) if replace(ranged, videos=count).complete]
    assert right == [8_392, 8_393, 8_394, 8_395]
    assert replace(ranged, videos=8_391).wrong_counts == ["8,391 videos, expected 8,392 to 8,395"]
