import pytest
from PIL import Image
from saved_hcmi import save_tiny_hcmi, write_video

from hcmi.cli import main
from hcmi.retrieval import VideoIndex

QUERY = "a red ring"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An index of three videos, and the videos."""
    folder = tmp_path_factory.mktemp("indexed")
    for number in range(3):
        write_video(folder / "videos" / f"{number}.mp4", frames=12 + 4 * number, seed=number)
    with VideoIndex.create(folder / "index", save_tiny_hcmi(folder / "model"), device="cpu") as index:
        index.add([folder / "videos"], progress=False, num_workers=0)
    return folder


def test_hits_are_explained_by_rank_and_by_path(folder, tmp_path, capsys):
    with VideoIndex.open(folder / "index", device="cpu") as index:
        hits = index.search(QUERY).hits
    for rank, hit in enumerate(hits, 1):
        printed = []
        for name in (str(rank), hit.video):
            out = tmp_path / "deeper" / f"{rank}.png"
            options = ["--out", str(out), "--device", "cpu"]
            assert main(["explain", str(folder / "index"), name, QUERY, *options]) == 0
            printed.append(capsys.readouterr().out)
            with Image.open(out) as picture:
                assert picture.format == "PNG"
        assert printed[0] == printed[1]
        lines = printed[0].splitlines()
        assert lines[0] == f'"{QUERY}"'
        assert hit.video in lines[1]
        assert f"similarity {hit.score:.3f}: words and frames {hit.level_scores['frame_word']:.3f}," in lines[2]
        header = next(n for n, line in enumerate(lines) if line.split()[:1] == ["word"])
        rows = [line.split() for line in lines[header + 1 : header + 6]]
        assert [row[0] for row in rows] == ["[start]", "a", "red", "ring", "[end]"]
        assert sum(float(row[3]) for row in rows) == pytest.approx(hit.level_scores["frame_word"], abs=0.003)
        assert lines[-1] == f"picture: {out}"


@pytest.mark.parametrize(
    ("hit", "query", "message"),
    [
        ("0", QUERY, "no hit 0"),
        ("4", QUERY, "the ranks are 1 to 3"),
        ("gone.mp4", QUERY, "gone.mp4"),
        ("1", " ", "empty"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, tmp_path, hit, query, message, capsys):
    out = tmp_path / "why.png"
    assert main(["explain", str(folder / "index"), hit, query, "--out", str(out), "--device", "cpu"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("hcmi explain: error:")
    assert message in error
    assert not out.exists()
