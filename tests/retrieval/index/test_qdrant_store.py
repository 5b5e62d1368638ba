import os
import uuid

import numpy as np
import pytest
import torch
from encoded import random_encoded
from random_features import random_text_features
from saved_hcmi import save_tiny_hcmi

from hcmi.retrieval import VideoIndex, VideoIndexError
from hcmi.retrieval.index import qdrant_server
from hcmi.retrieval.index.catalog import Catalog, FileState
from hcmi.retrieval.index.qdrant_server import QdrantServer, connect
from hcmi.retrieval.index.search import SearchDepth, query_vectors
from hcmi.retrieval.index.window import Window

qdrant_client = pytest.importorskip("qdrant_client")

WIDTH = 24  # of the tiny model
FILES = {f"/v/{i}.mp4": 1 + i % 3 for i in range(30)}
DEPTH = SearchDepth(nearest=60, rescored=60)  # all of them


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    return save_tiny_hcmi(tmp_path_factory.mktemp("model"))


@pytest.fixture(params=["local mode", "server"])
def client(request, monkeypatch):
    """Of qdrant-client's local mode in the place of a server; or of a real one, where there is one."""
    if request.param == "server":
        if "HCMI_QDRANT_URL" not in os.environ:
            pytest.skip("HCMI_QDRANT_URL names no Qdrant server")
        yield connect(os.environ["HCMI_QDRANT_URL"])
        return
    local = qdrant_client.QdrantClient(":memory:")
    monkeypatch.setattr(qdrant_server, "connect", lambda url: local)
    yield local
    local.close()


@pytest.fixture
def index(client, model_folder, tmp_path):
    url, name = os.environ.get("HCMI_QDRANT_URL", "http://localhost:6333"), f"test-{uuid.uuid4()}"
    options = {"precision": "float32", "url": url, "collection": name, "device": "cpu"}
    with VideoIndex.create(tmp_path / "index", model_folder, **options) as made:
        yield made
    client.delete_collection(name)


@pytest.fixture
def embedded(model_folder, tmp_path):
    with VideoIndex.create(tmp_path / "embedded", model_folder, precision="float32", device="cpu") as made:
        yield made


def fill(index, files=FILES, seed=0):
    places = [(path, number) for path, count in files.items() for number in range(count)]
    windows = random_encoded([1 + i % 6 for i in range(len(places))], WIDTH, seed)
    for path, count in files.items():
        index.begin_file(path, FileState(7, 8), [Window(n, 10.0 * n, 10.0 * n + 10) for n in range(count)])
    index.append(windows, places)
    return windows


def plain(hits):
    return [(h.video, h.window, h.start, h.end, round(h.score, 4), plain(h.others)) for h in hits]


def assert_alike(first, second):
    for seed in range(4):
        text = random_text_features([5], WIDTH, seed)
        for options in ({"exact": True}, {"depth": DEPTH}):
            found, expected = (index.search_features(text, top_k=8, **options) for index in (first, second))
            assert plain(found.hits) == plain(expected.hits)
            assert (found.windows, found.exact) == (expected.windows, expected.exact)


def test_it_finds_what_the_embedded_store_finds(index, embedded):
    for some in (index, embedded):
        fill(some)
    assert_alike(index, embedded)
    for some in (index, embedded):
        assert some.delete(["/v/3.mp4", "/v/5.mp4"]) == 2
        fill(some, {"/v/4.mp4": 2, "/v/new.mp4": 1}, seed=5)  # one of them again
    assert_alike(index, embedded)
    assert index.info.dead == embedded.info.dead > 0
    for some in (index, embedded):
        some.compact()
        assert some.info.dead == 0
        fill(some, {"/v/3.mp4": 3}, seed=6)
    assert_alike(index, embedded)
    index.verify()
    with VideoIndex.open(index.path, device="cpu") as reader:
        assert_alike(reader, embedded)


def test_compacting_deletes_the_points(index, client):
    fill(index)
    index.delete(list(FILES)[:10])
    index.compact()
    collection = index.info.server.collection
    assert client.count(collection, exact=True).count == index.info.windows < sum(FILES.values())


def test_both_stages_are_those_of_brute_force(index):
    features = fill(index).features
    _, store = index._snapshot()
    video, clips = (torch.nn.functional.normalize(features[name], dim=-1) for name in ("pooler_output", "clips"))
    for seed in range(4):
        query = query_vectors(random_text_features([7], WIDTH, seed), dict.fromkeys(index.level_weights, 1.0))
        near = (video @ query.sentence).topk(20).indices.tolist()
        best = {
            row: sum(
                weight * max(float(clip @ phrase) for clip in clips[row, features.clip_mask[row]])
                for phrase, weight in zip(query.phrases, query.phrase_weights.tolist(), strict=True)
            )
            for row in near
        }
        found = store.nearest(query, SearchDepth(nearest=20, rescored=6))
        assert found.tolist() == sorted(near, key=best.get, reverse=True)[:6]
        unweighted = query._replace(level_weights={"clip_phrase": 0.0})
        assert store.nearest(unweighted, SearchDepth(nearest=20, rescored=6)).tolist() == near[:6]


def test_what_comes_back_is_what_was_sent(index, client):
    windows = fill(index)
    rows = np.array([40, 0, 17])
    back, sent = index._snapshot()[1].read(rows), windows.features
    real = sent.frame_mask[rows]
    assert torch.equal(back.features.frame_mask, real) and torch.equal(back.features.clip_mask, sent.clip_mask[rows])
    for name in ("pooler_output", "frames", "clips"):
        expected = torch.nn.functional.normalize(sent[name][rows], dim=-1)
        mask = {"pooler_output": ..., "frames": real, "clips": sent.clip_mask[rows]}[name]
        torch.testing.assert_close(back.features[name][mask], expected[mask])
    for name in ("frame_weights", "clip_weights"):
        torch.testing.assert_close(back.features[name], sent[name][rows])
    made_of = sent.clip_frame_weights[rows].where(sent.clip_mask[rows][..., None], 0)
    torch.testing.assert_close(back.features.clip_frame_weights, made_of)
    assert torch.equal(back.timestamps[real], windows.timestamps[rows][real]) and back.timestamps[~real].isnan().all()
    assert torch.equal(back.video_spans, windows.video_spans[rows])
    (point,) = client.retrieve(index.info.server.collection, [1])
    told = ("path", "number", "start", "end", "size", "mtime_ns")
    assert [point.payload[name] for name in told] == ["/v/1.mp4", 0, 0.0, 10.0, 7, 8]


def test_points_without_an_entry_in_the_catalogue_are_not_found(index, embedded, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "place", fail)
        with pytest.raises(KeyboardInterrupt):
            fill(index, {"/v/lost.mp4": 6}, seed=9)
    index.delete(["/v/lost.mp4"])
    for some in (index, embedded):
        fill(some, {"/v/a.mp4": 1, "/v/b.mp4": 2})
    assert_alike(index, embedded)
    with pytest.raises(VideoIndexError, match=r"Window 7 of /v/a.mp4 is not waiting"):
        index.append(random_encoded([3], WIDTH), [("/v/a.mp4", 7)])


def test_lost_points_are_told(index, client):
    fill(index)
    collection = index.info.server.collection
    client.delete(collection, [0])  # the only window of its video
    assert len(index.search_features(random_text_features([5], WIDTH), top_k=100).hits) == len(FILES) - 1
    with pytest.raises(VideoIndexError, match=f"{collection} .* lacks 1 of"):
        index.verify()


def test_merging_goes_both_ways(index, embedded, model_folder, tmp_path):
    fill(embedded)
    assert index.merge(embedded) == len(FILES)
    assert_alike(index, embedded)
    with VideoIndex.create(tmp_path / "back", model_folder, precision="float32", device="cpu") as back:
        back.merge(index)
        assert_alike(back, embedded)


def test_a_collection_is_of_one_index(index, model_folder, tmp_path, monkeypatch):
    server = index.info.server
    with pytest.raises(VideoIndexError, match=f"{server.collection} on {server.url} already"):
        VideoIndex.create(tmp_path / "other", model_folder, url=server.url, collection=server.collection, device="cpu")


def test_the_key_is_taken_from_the_environment_and_kept_nowhere(model_folder, tmp_path, monkeypatch):
    local, asked = qdrant_client.QdrantClient(":memory:"), []
    monkeypatch.setenv("QDRANT_API_KEY", "a-secret")
    monkeypatch.setattr(qdrant_client, "QdrantClient", lambda *args, **options: asked.append(options) or local)
    VideoIndex.create(tmp_path / "index", model_folder, url="http://there:7000", device="cpu").close()
    assert asked[0]["api_key"] == "a-secret" and asked[0]["grpc_port"] == 7001
    assert [name.name for name in local.get_collections().collections] == ["index"]
    for file in (tmp_path / "index").rglob("*"):
        assert b"a-secret" not in file.read_bytes()
    for url in ("http://me:a-secret@there:7000", "there:6333", "/tmp/qdrant"):
        with pytest.raises(VideoIndexError, match="no address of a Qdrant server"):
            QdrantServer(url, "c")


def test_a_server_that_is_away_is_told(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(qdrant_server, "TIMEOUT", 2)
    with pytest.raises(VideoIndexError, match=r"http://127\.0\.0\.1:9 does not answer"):
        VideoIndex.create(tmp_path / "index", model_folder, url="http://127.0.0.1:9", device="cpu")
    assert not Catalog.location(tmp_path / "index").exists()


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_vectors_are_kept_as_precisely_as_asked(client, model_folder, tmp_path, precision):
    url, name = os.environ.get("HCMI_QDRANT_URL", "http://localhost:6333"), f"test-{uuid.uuid4()}"
    options = {"precision": precision, "url": url, "collection": name, "device": "cpu"}
    with VideoIndex.create(tmp_path / "index", model_folder, shard_number=2, replication_factor=1, **options):
        vectors = client.get_collection(name).config.params.vectors
    assert all(vector.datatype == "float16" for vector in vectors.values())
    assert (vectors["clips"].quantization_config is not None) == (precision == "int8")
    client.delete_collection(name)
