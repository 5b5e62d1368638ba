import pytest
from accelerate.state import AcceleratorState, GradientState
from bench_scripts import load_script

load_script("video_reading")
bench = load_script("loading")
SETTINGS = bench.Settings(
    count=3, size=(80, 60), seconds=1, frames=2, views=2, candidates=4, image_size=16, batch=2, least_seconds=0.0
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return bench.written(tmp_path_factory.mktemp("videos"), SETTINGS)


@pytest.fixture(scope="module")
def rows(files, tmp_path_factory):
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return bench.measure(files, tmp_path_factory.mktemp("frames"), SETTINGS, [0, 1])


def test_every_source_is_read_with_every_number_of_workers(rows):
    assert [(row["source"], row["workers"]) for row in rows] == [
        (source, workers) for source in ("files", "raw", "jpeg") for workers in (0, 1)
    ]
    for row in rows:
        assert min(value for value in row.values() if isinstance(value, float)) > 0
        assert row["frames_per_second"] == pytest.approx(4 * row["videos_per_second"])


def test_a_row_shows_the_limit(rows):
    limits = {"limit_videos_per_second": 500.0, "limit_cpu_milliseconds": 2.0}
    row = rows[0] | {"cpu_milliseconds": 8.0} | limits
    assert bench.table([row]).splitlines()[1].split()[-4:] == ["500.0", "8.00", "2.00", "25%"]


def test_one_process_has_the_limit_of_one_core(rows):
    for row in rows:
        assert row["limit_videos_per_second"] == pytest.approx(1000 / row["limit_cpu_milliseconds"])


def test_the_limit_of_files_decodes_up_to_the_last_wanted_frame(files, monkeypatch):
    class Middle:
        span = (0.0, 1.0)

    decoded = []
    monkeypatch.setattr(bench, "segment_times", lambda start, end, count, sampling, seed: [0.1, 0.4 + seed / 10])
    monkeypatch.setattr(bench, "decode_packets", lambda path, groups: decoded.append((path, groups)))
    for work in bench.decoding(lambda row: Middle(), files, SETTINGS):
        work()
    assert [path for path, _ in decoded] == files
    # 25 frames a second, one group: the frame at 0.5 s is number 12; packets of frames shown later may come before it.
    assert all(len(groups) == 1 and 13 <= len(groups[0]) < 20 for _, groups in decoded)


def test_found_files_are_videos_and_at_most_so_many(tmp_path):
    for name in ("b.mp4", "a/c.MKV", "note.txt", "d.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in bench.found(tmp_path, 2)] == ["c.MKV", "b.mp4"]
    with pytest.raises(SystemExit, match="no file ends with"):
        bench.found(tmp_path / "missing", 2)
