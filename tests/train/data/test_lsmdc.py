import pytest
from miniature_benchmarks import FORMS, sentence, write_miniature

from hcmi.train.data.benchmarks import read_annotations


@pytest.fixture(params=FORMS["lsmdc"])
def miniature(request, tmp_path):
    return write_miniature("lsmdc", tmp_path / "made", request.param, decodable=False)


def test_each_split_has_its_file_and_its_order(miniature):
    for split, numbers in (("train", range(8)), ("validation", range(8, 12)), ("test", range(12, 16))):
        found = read_annotations("lsmdc", split, miniature.annotations)
        for number, annotation in zip(numbers, found, strict=True):
            assert annotation.captions[0] == f'{sentence(number)}, says "SOMEONE".'
            assert annotation.start is annotation.end is None
            film = ("0042_A_Film", "1099_Another_Film_2")[number % 2]
            assert annotation.file_names == (f"{film}/{annotation.video_id}", annotation.video_id)


def test_the_lines_of_one_clip_become_one_row(miniature):
    lines = (miniature.annotations / "LSMDC16_annos_training.csv").read_text().splitlines()
    found = read_annotations("lsmdc", "train", miniature.annotations)
    assert (len(lines), len(found)) == (9, 8)
    assert found[2].captions == ('a blue square moves up, says "SOMEONE".', "SOMEONE's square stops.")
    assert [len(annotation.captions) for annotation in found] == [1, 1, 2, 1, 1, 1, 1, 1]


def test_other_lines_are_named(miniature):
    path = miniature.annotations / "LSMDC16_annos_val.csv"
    path.write_text(path.read_text() + "0042_A_Film_00.00.00.001-00.00.00.002\t1\t2\n")
    with pytest.raises(ValueError, match=r"LSMDC16_annos_val.csv, line 5: 3 fields between tabs instead of 6"):
        read_annotations("lsmdc", "validation", miniature.annotations)


def test_other_names_of_clips_are_looked_for_as_they_are(miniature):
    path = miniature.annotations / "LSMDC16_challenge_1000_publictect.csv"
    path.write_text("clip_7\t1\t2\t1\t2\tHe stops.\n")
    (annotation,) = read_annotations("lsmdc", "test", miniature.annotations)
    assert annotation.file_names == ("clip_7",)


def test_missing_files_are_named(miniature):
    (miniature.annotations / "LSMDC16_annos_training.csv").unlink()
    with pytest.raises(ValueError, match=r"have no LSMDC16_annos_training.csv"):
        read_annotations("lsmdc", "train", miniature.annotations)
