"""The server that the tests publish to behaves as the Hub does, where the real client looks."""

import urllib.request

import pytest
from hub_state import TOKEN
from huggingface_hub import HfApi, ModelCard, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

NAME = "tester/things"


@pytest.fixture
def folder(tmp_path):
    """A card, a large file and a file in a folder."""
    folder = tmp_path / "things"
    (folder / "below").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [one]\n---\n# Things\n")
    (folder / "large.safetensors").write_bytes(bytes(range(256)) * 100)
    (folder / "below" / "small.txt").write_text("small")
    return folder


@pytest.fixture
def commit(hub, folder):
    HfApi().create_repo(NAME)
    return HfApi().upload_folder(repo_id=NAME, folder_path=folder).oid


def test_what_was_uploaded_comes_back(hub, folder, commit):
    place = snapshot_download(NAME)
    for name in ("README.md", "large.safetensors", "below/small.txt"):
        with open(f"{place}/{name}", "rb") as found:
            assert found.read() == (folder / name).read_bytes()
    information = HfApi().model_info(NAME)
    assert (information.sha, information.private, information.tags) == (commit, False, ["one"])
    assert {file.rfilename for file in information.siblings} >= {"README.md", "below/small.txt"}
    (below, large) = HfApi().get_paths_info(NAME, ["below", "large.safetensors"])
    assert large.lfs.size == large.size == 25600 and below.path == "below"
    assert {entry.path for entry in HfApi().list_repo_tree(NAME, "below")} == {"below/small.txt"}
    assert HfApi().whoami()["name"] == "tester"


def test_revisions(hub, folder, commit):
    HfApi().create_tag(NAME, tag="v1")
    HfApi().create_branch(NAME, branch="trial")
    HfApi().upload_file(repo_id=NAME, path_in_repo="below/small.txt", path_or_fileobj=b"other", revision="trial")
    HfApi().delete_file("README.md", NAME)
    texts = {}
    for revision in ("main", "v1", "trial", commit):
        with open(hf_hub_download(NAME, "below/small.txt", revision=revision)) as file:
            texts[revision] = file.read()
    assert texts == {"main": "small", "v1": "small", "trial": "other", commit: "small"}
    references = HfApi().list_repo_refs(NAME)
    assert [b.name for b in references.branches] == ["main", "trial"] and [t.name for t in references.tags] == ["v1"]
    assert "README.md" not in HfApi().list_repo_files(NAME)
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(NAME, "below/small.txt", revision="v2")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(NAME, "nowhere.txt")


def test_private_repositories_are_seen_with_the_token_alone(hub, folder):
    HfApi().create_repo(NAME, private=True)
    assert HfApi().model_info(NAME).private
    with pytest.raises(RepositoryNotFoundError, match="401"):
        HfApi().model_info(NAME, token=False)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi().model_info(NAME, token="hf_wrong")
    with pytest.raises(RepositoryNotFoundError, match="404"):
        HfApi().model_info("tester/nothing")
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi().create_repo("somebody/things")
    with pytest.raises(HfHubHTTPError, match="409"):
        HfApi().create_repo(NAME)


def test_parts_of_a_file_can_be_read(hub, commit):
    request = urllib.request.Request(f"{hub.address}/{NAME}/resolve/main/large.safetensors")
    request.add_header("Range", "bytes=10-19")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 206 and answer.read() == bytes(range(10, 20))
        assert answer.headers["Content-Range"] == "bytes 10-19/25600"


def test_contents_have_to_fit_their_hash(hub, commit):
    request = urllib.request.Request(f"{hub.address}/lfs/put/{'0' * 64}", data=b"other", method="PUT")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


def test_failures_can_be_made(hub, commit):
    hub.fail("GET", "/api/models/", 418)
    with pytest.raises(HfHubHTTPError, match="418"):
        HfApi().model_info(NAME)
    assert HfApi().model_info(NAME).sha == commit
    assert hub.requests[-2:] == [("GET", f"/api/models/{NAME}", status) for status in (418, 200)]
    assert not any(TOKEN in path for _, path, _ in hub.requests)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("license: [my own", "not YAML"),
        ("license: my-own", "license"),
        ("base_model: /home/somebody/clip", "base_model"),
        ("tags: [1, 2]", "tags"),
        ("model-index: [{name: x, results: [{task: {type: y}}]}]", "model-index"),
        ("- a list", "have to be an object"),
    ],
)
def test_bad_cards_are_refused(hub, metadata, message):
    card = f"---\n{metadata}\n---\ntext"
    HfApi().create_repo(NAME)
    with pytest.raises(ValueError, match=message):
        HfApi().upload_file(repo_id=NAME, path_in_repo="README.md", path_or_fileobj=card.encode())


def test_evaluation_results_are_read(hub, commit):
    good = b"- {dataset: {id: a/b, task_id: c}, value: 1.5}\n"
    bad = b"- {dataset: {id: nothing, task_id: c}, value: 1.5}\n"
    for name, content in (("good", good), ("bad", bad)):
        HfApi().upload_file(repo_id=NAME, path_in_repo=f".eval_results/{name}.yaml", path_or_fileobj=content)
    (entry,) = HfApi().model_info(NAME, expand=["evalResults"]).eval_results
    assert (entry.dataset_id, entry.task_id, entry.value) == ("a/b", "c", 1.5)


def test_good_cards_are_accepted(hub):
    ModelCard("---\nlicense: apache-2.0\nbase_model: a/b\n---\ntext").validate()
