import io
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from demo_calls import ask, names_in
from demo_index import late_moment, make_demo_index
from PIL import Image
from saved_hcmi import save_tiny_hcmi

pytest.importorskip("gradio", reason="the demo's own extra")

from starlette.testclient import TestClient

from hcmi import cli
from hcmi.processing.video_reading import probe_video
from hcmi.retrieval import VideoIndex
from hcmi.retrieval.pictures.explain import explain_hit
from hcmi.retrieval.pictures.explain_picture import picture_of
from hcmi.retrieval.web import clips, demo, examples
from hcmi.retrieval.web.clips import PlayableClips
from hcmi.retrieval.web.hits import ShownHits

SECRET = "what nobody may read"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    make_demo_index(folder, save_tiny_hcmi(folder / "model"), ["a.mp4", "<b> & 'c'.mp4", "d${alert(1)}.mp4", "e.avi"])
    (folder / "outside.mp4").write_text(SECRET)
    return folder


@pytest.fixture(scope="module")
def index(folder):
    with VideoIndex.open(folder / "index", device="cpu") as opened:
        yield opened


@contextmanager
def calling(index):
    with TestClient(demo.build_app(index), base_url="http://127.0.0.1:7860") as client:
        yield client


@pytest.fixture(scope="module")
def client(index):
    with calling(index) as client:
        yield client


def show(client, index, query: str, video: str):
    """The hit of a video as the page shows it: its address, and the hit itself."""
    result = index.search(query, top_k=8)
    names = names_in(ask(client, "search_text", query))
    order = [hit for best in result.hits for hit in (best, *best.others)]
    place = next(i for i, hit in enumerate(order) if hit.video.endswith(video))
    return f"/hits/{names[place]}", order[place]


def test_the_page_shows_the_hits_of_the_index_in_their_order(client, index):
    result = index.search("a red ring", top_k=8)
    html = ask(client, "search_text", "a red ring")
    places = [html.index(f">{hit.score:z.3f}<") for hit in result.hits]
    assert len(result.hits) == 4 and places == sorted(places)
    assert len(set(names_in(html))) == 8, "two windows of each of the four videos"
    for hit in result.hits:
        for level in hit.level_scores.values():
            assert f"<span>{level:z.3f}</span>" in html
    assert "&lt;b&gt; &amp; &#39;c&#39;.mp4" in html and "<b> &" not in html
    assert "8 windows" in html and "all scored exactly" in html


def send(client, name: str, data: bytes) -> str:
    answer = client.post("/examples", content=data, headers={"X-File-Name": name})
    assert answer.status_code == 200
    return answer.text


def test_an_example_video_is_searched_for_and_not_kept(client, index, folder):
    name = send(client, "m%C3%BC%3Ci%3E.mp4", (folder / "videos" / "a.mp4").read_bytes())
    html = ask(client, "search_example", name)
    expected = index.search(video=folder / "videos" / "a.mp4", top_k=8)
    assert "<b>mü&lt;i&gt;.mp4</b>" in html and html.count("<li>") == len(expected.hits)
    assert html.index(f">{expected.hits[0].score:z.3f}<") < html.index(f">{expected.hits[3].score:z.3f}<")
    assert len(names_in(html)) == 8 and "data-explained" not in html
    explained = client.get(f"/hits/{names_in(html)[0]}/explanation")
    assert explained.status_code == 404 and "text" in explained.text
    assert "choose it again" in ask(client, "search_example", name)

    html = ask(client, "search_example", send(client, "bad.mp4", b"no video at all"))
    assert "bad.mp4: not a video" in html and 'role="alert"' in html and "hcmi-demo" not in html


def test_examples_are_limited_in_size_and_number(client, folder, monkeypatch):
    monkeypatch.setattr(examples, "LARGEST", 10)
    refused = client.post("/examples", content=b"12345678901", headers={"X-File-Name": "a"})
    assert refused.status_code == 413 and "shorter" in refused.text
    monkeypatch.setattr(examples, "KEPT", 1)
    first, second = (send(client, "a", b"1234567890") for _ in range(2))
    assert "choose it again" in ask(client, "search_example", first)
    assert "not a video" in ask(client, "search_example", second)
    assert client.post("/examples", content=b"1").status_code == 403, "another server's page"


@pytest.mark.parametrize("query, message", [("  ", "query is empty"), ("a" * 2000, "at most 1000")])
def test_what_cannot_be_searched_for_is_told_on_the_page(client, query, message):
    html = ask(client, "search_text", query)
    assert message in html and 'role="alert"' in html and not names_in(html)


def test_videos_are_served_whole_and_by_ranges(client, index):
    address, hit = show(client, index, "a red ring", "a.mp4")
    whole = client.get(f"{address}/video")
    data = Path(hit.video).read_bytes()
    assert whole.content == data and whole.headers["content-type"] == "video/mp4"
    part = client.get(f"{address}/video", headers={"Range": "bytes=100-299"})
    assert part.status_code == 206 and part.content == data[100:300]
    assert part.headers["content-range"] == f"bytes 100-299/{len(data)}"
    beyond = client.get(f"{address}/video", headers={"Range": f"bytes={len(data)}-"})
    assert beyond.status_code == 416


def test_pictures_are_those_of_the_hit(client, index):
    address, hit = show(client, index, "a red ring", "a.mp4")
    shown = Image.open(io.BytesIO(client.get(f"{address}/thumbnail").content))
    difference = np.abs(np.asarray(shown, float) - np.asarray(hit.thumbnail(), float))
    assert shown.size == hit.thumbnail().size and difference.mean() < 6, "as JPEG"
    explanation = Image.open(io.BytesIO(client.get(f"{address}/explanation").content))
    assert explanation.convert("RGB") == picture_of(explain_hit(index, hit, "a red ring"))


def test_a_video_that_no_browser_plays_is_converted_around_the_moment(client, index):
    address, hit = show(client, index, late_moment(index, ".avi")[0], "e.avi")
    assert client.get(f"{address}/clip.mp4").status_code == 404, "not made yet"
    clip = client.get(f"{address}/clip").json()
    assert clip["start"] <= hit.start and clip["end"] >= hit.end
    data = client.get(f"{address}/clip.mp4")
    info = probe_video(data.content)
    assert data.headers["content-type"] == "video/mp4" and info.codec == "h264"
    assert info.duration == pytest.approx(clip["end"] - clip["start"], abs=0.11)
    assert client.get(f"{address}/clip").json() == clip


def test_only_so_many_clips_are_kept(index, monkeypatch):
    monkeypatch.setattr(clips, "KEPT", 1)
    playable = PlayableClips()
    hits = index.search("a red ring").hits[:2]
    first, second = (playable.make(str(number), hit) for number, hit in enumerate(hits))
    assert playable.get("0") is None and playable.get("1") is second
    assert second.path.exists() and not first.path.exists()


def test_nothing_stays_behind_of_what_was_made_and_sent(index, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with calling(index) as client:
        address, _ = show(client, index, late_moment(index, ".avi")[0], "e.avi")
        assert client.get(f"{address}/clip").status_code == 200
        send(client, "a.mp4", b"some bytes")
        assert sum(file.is_file() for file in tmp_path.glob("hcmi-*/*")) == 2
    assert not list(tmp_path.glob("hcmi-*"))


def test_what_is_gone_or_broken_is_told_in_words(client, index, folder):
    address, _ = show(client, index, "a red ring", "a.mp4")
    video = folder / "videos" / "a.mp4"
    data = video.read_bytes()
    try:
        video.write_bytes(b"no video")
        for part in ("thumbnail", "explanation", "clip"):
            answer = client.get(f"{address}/{part}")
            assert answer.status_code == 500 and answer.text.startswith("a.mp4: not a video"), part
        video.unlink()
        for part in ("video", "thumbnail", "explanation", "clip"):
            answer = client.get(f"{address}/{part}")
            assert answer.status_code == 404 and answer.text.startswith("a.mp4 is not there any more"), part
    finally:
        video.write_bytes(data)
    assert client.get("/hits/0123456789abcdef/video").status_code == 404


def test_a_video_that_left_the_index_is_not_served_and_damage_is_told(folder, tmp_path):
    copy = shutil.copytree(folder / "index", tmp_path / "index")
    with VideoIndex.open(copy, device="cpu") as index, calling(index) as client:
        address, hit = show(client, index, "a red ring", "a.mp4")
        with VideoIndex.open(copy, write=True) as writer:
            writer.delete([hit.video])
        answer = client.get(f"{address}/video")
        assert answer.status_code == 404 and answer.text == "a.mp4 is no longer in the index: search again."
        assert ask(client, "search_text", "a red ring").count("<li>") == 3

        records = copy / "vectors-000001" / "records.bin"
        whole = bytearray(records.read_bytes())
        whole[-2000] ^= 1
        records.write_bytes(whole)
        html = ask(client, "search_text", "a red ring")
        assert "damaged" in html and 'role="alert"' in html and "Traceback" not in html


def test_no_path_that_a_client_names_is_opened(client, index, folder):
    address, _ = show(client, index, "a red ring", "a.mp4")
    outside, catalog = folder / "outside.mp4", folder / "index" / "catalog.sqlite"
    for path in (outside, catalog, folder / "videos" / "a.mp4"):
        for way in (
            f"/file={path}",
            f"/gradio_api/file={path}",
            f"/gradio_api/file/{path}",
            f"/gradio_api//file={path}",
            f"/gradio_api/file=%2e%2e{str(path).replace('/', '%2f')}",
            f"/gradio_api/stream/{path}",
            f"/gradio_api/proxy=file://{path}",
            f"/static/../../../../../../../../..{path}",
            f"/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e{path}",
            f"/assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{path}",
            f"/hits/{str(path).replace('/', '%2f')}/video",
            "/hits/..%2f..%2foutside.mp4/video",
            f"{address}/..%2f..%2f..%2f..%2f..{path}",
            f"{address}/video%2f..%2f..%2f..%2f..{path}",
        ):
            answer = client.get(way)
            assert answer.status_code in (403, 404), way
            assert SECRET not in answer.text and "SQLite" not in answer.text
        assert "choose it again" in ask(client, "search_example", str(path))
        # Gradio opens what looks like one of its files, in any component.
        for file in ({"path": str(path)}, {"path": str(path), "meta": {"_type": "gradio.FileData"}}):
            for data in ([file, 8], [[file], 8], ["a", file], file, None):
                call = {"data": data, "fn_index": 0, "session_hash": "s"}
                assert client.post("/gradio_api/queue/join", json=call).status_code == 400
    assert client.post("/gradio_api/queue/join", content=b"no JSON").status_code == 400
    assert client.post("/gradio_api/queue/join", content=b" " * 100_000).status_code == 413


def test_other_names_of_this_machine_are_not_answered(index):
    with TestClient(demo.build_app(index), base_url="http://evil.example") as client:
        assert client.get("/").status_code == 400
    with TestClient(demo.build_app(index, hosts=None), base_url="http://my.host") as client:
        page = client.get("/")
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    assert '"analytics_enabled":false' in page.text.replace(" ", "")


def test_a_search_waits_for_nobodys_video(client, index, monkeypatch):
    address, _ = show(client, index, "a red ring", "e.avi")
    begun, ended = threading.Event(), threading.Event()

    def slow(*_, **__):
        begun.set()
        assert ended.wait(60)
        raise OSError("the disk is full")

    monkeypatch.setattr(clips, "save_clip", slow)
    answers = []
    waiting = [threading.Thread(target=lambda: answers.append(client.get(f"{address}/clip"))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    assert begun.wait(60)
    assert names_in(ask(client, "search_text", "a blue ring"))
    assert client.get(f"{address}/video").status_code == 200 and not answers
    ended.set()
    for thread in waiting:
        thread.join()
    assert [(answer.status_code, answer.text) for answer in answers] == [(500, "the disk is full")] * 3


def test_hits_shown_long_ago_are_forgotten(index, monkeypatch):
    monkeypatch.setattr("hcmi.retrieval.web.hits.MOST_HITS", 2)
    shown, hits = ShownHits(), index.search("a red ring").hits
    names = [shown.add(hit, "a red ring") for hit in hits[:2]]
    assert shown.add(hits[0], "a red ring") == names[0] != shown.add(hits[0], None)
    assert shown.get(names[1]) is None and shown.get(names[0]).hit == hits[0]


def test_an_address_in_use_and_a_missing_index_are_told(index, capsys, tmp_path):
    with demo._listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["demo", str(index.path), "--port", str(port), "--device", "cpu"]) == 1
    assert f"Cannot listen on port {port} of 127.0.0.1" in capsys.readouterr().err
    assert cli.main(["demo", str(tmp_path)]) == 1
    assert "There is no index" in capsys.readouterr().err


@pytest.mark.parametrize("host, warned", [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_listening_for_others_is_warned_of(index, capsys, monkeypatch, host, warned):
    served = []
    monkeypatch.setattr(demo.uvicorn.Server, "run", lambda self, sockets: served.extend(sockets))
    assert cli.main(["demo", str(index.path), "--host", host, "--port", "0", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert f"http://{host}:" in printed.out and ("no password" in printed.err) == warned and len(served) == 1


def test_the_package_that_is_missing_is_named(index, capsys, monkeypatch):
    monkeypatch.setattr("hcmi.commands.demo.find_spec", lambda name: None)
    assert cli.main(["demo", str(index.path)]) == 1
    assert 'pip install "hcmi[demo]"' in capsys.readouterr().err
