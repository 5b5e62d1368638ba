import pytest
import yaml

from hcmi.train.data.benchmarks import BENCHMARKS, protocols
from hcmi.train.published import METRICS, RECALLS, published_results, read_published

FIVE = ("msrvtt", "msvd", "lsmdc", "didemo", "activitynet")
PAPERS = {"one": {"title": "A Paper", "arxiv": "2204.03382"}}
ROW = {
    "benchmark": "msvd",
    "protocol": "official",
    "method": "M",
    "backbone": "B",
    "post_processing": "none",
    "text_to_video": {"R@1": 1.0, "R@5": 2.0, "MdR": 3},
    "paper": "one",
    "reported_by": "its authors",
}


@pytest.fixture
def read(tmp_path):
    def read(papers=PAPERS, **changes):
        entry = {key: value for key, value in (ROW | changes).items() if value is not None}
        path = tmp_path / "rows.yaml"
        path.write_text(yaml.safe_dump({"papers": papers, "results": [ROW, entry]}))
        return read_published(path)[1]

    return read


@pytest.mark.parametrize("benchmark", FIVE)
def test_every_row_says_where_it_is_from_and_how_it_was_measured(benchmark):
    rows = published_results(benchmark)
    known = {*protocols(benchmark), *(["1k-A"] if benchmark == "msrvtt" else [])}
    assert len(rows) >= 4
    for row in rows:
        assert row.protocol in known
        assert "arXiv:2" in row.source and row.reported_by in row.source and row.backbone.startswith("CLIP ViT-")
        assert set(row.text_to_video) <= set(METRICS) and set(row.text_to_video) & set(RECALLS)
    assert len({(row.method, row.backbone, row.post_processing) for row in rows}) == len(rows)


@pytest.mark.parametrize("benchmark", FIVE)
def test_the_method_itself_stands_with_its_post_processing_and_re_implemented_without(benchmark):
    rows = published_results(benchmark)
    (own,) = [row for row in rows if row.arxiv == "2204.03382"]
    assert (own.method, own.backbone, own.post_processing) == ("HCMI", "CLIP ViT-B/16", "DSL")
    (again,) = [row for row in rows if "re-implementation" in row.note]
    assert again.post_processing == "none" and again.arxiv == "2301.07868" and again.video_to_text
    assert own.text_to_video["R@1"] > again.text_to_video["R@1"]


def test_the_figures_of_the_paper():
    recall = {name: published_results(name)[0].text_to_video["R@1"] for name in FIVE}
    assert recall == {"msrvtt": 55.0, "msvd": 58.2, "lsmdc": 29.7, "didemo": 52.1, "activitynet": 57.3}


def test_nothing_was_published_on_the_built_in_benchmark_or_own_videos():
    assert set(BENCHMARKS) - set(FIVE) == {"shape_stories", "folder"} and published_results("shape_stories") == []


def test_a_row_is_read_with_its_source(read):
    row = read(note="a note", video_to_text={"MnR": 10.5})
    assert row.source == "A Paper, arXiv:2204.03382; reported by its authors; a note"
    assert (row.text_to_video, row.video_to_text) == (ROW["text_to_video"], {"MnR": 10.5})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"papers": {}}, "paper 'one'"),
        ({"papers": {"one": {"title": "A Paper"}}}, "arXiv"),
        ({"backbone": None}, "backbone is missing"),
        ({"protocol": ""}, "protocol is missing"),
        ({"text_to_video": None}, "no numbers"),
        ({"text_to_video": {"R@1": 101.0}}, "R@1 cannot be 101"),
        ({"text_to_video": {"R@1": "55"}}, "R@1 cannot be '55'"),
        ({"text_to_video": {"MdR": 0.5}}, "MdR cannot be"),
        ({"text_to_video": {"R@1": 50.0, "R@10": 40.0}}, "fall with K"),
        ({"text_to_video": {"R@2": 50.0}}, "R@2 is not one of"),
        ({"metrics": 1}, "unknown fields: metrics"),
    ],
)
def test_a_row_that_cannot_be_is_refused_with_its_number(read, changes, message):
    with pytest.raises(ValueError, match=r"rows\.yaml: result [12]: ") as error:
        read(**changes)
    assert message in str(error.value)
