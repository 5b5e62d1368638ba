from hcmi.retrieval.indexing.progress import IndexProgress


def test_the_bar_tells_videos_windows_and_their_rate(capsys):
    with IndexProgress([100, 300], show=True) as progress:
        progress.advance(50, windows=1)
        progress.advance(50.0000001, windows=1, files=1)
        progress.advance(300, files=1)
    told = capsys.readouterr().err
    assert "Indexing: 0/2 videos   0%" in told
    last = told.split("\r")[-1]
    assert last.startswith("Indexing: 2/2 videos, 2 windows, ") and "/s 100%" in last


def test_it_can_be_silent(capsys):
    with IndexProgress([100], show=False) as progress:
        progress.advance(100, files=1)
    assert capsys.readouterr().err == ""
