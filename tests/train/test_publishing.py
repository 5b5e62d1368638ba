import json
import re
import shutil
import tempfile
import time
from pathlib import Path

import pytest
import torch
import yaml
from hub_state import SILENT, TOKEN, Hub
from huggingface_hub import HfApi, ModelCard

from hcmi import hub_waiting
from hcmi.modeling_hcmi import HCMIModel
from hcmi.train.publishing import RETRY_AFTER, PublishingError, create_repository, publish

NAME = "tester/tiny"


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory) -> Path:
    """The folder of a finished run."""
    return run(tmp_path_factory.mktemp("trained") / "run").model.parent


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Nobody waits; these are the seconds that would have been waited."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def state(folder: Path) -> dict[str, tuple]:
    """Content and time of every file."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def commits(hub: Hub) -> int:
    """How many commits there are, besides the one that makes the repository."""
    return len(hub.model(NAME).commits) - 1


def test_one_commit_has_everything(trained, hub):
    before = state(trained)
    address = publish(trained, NAME)
    assert address == f"{hub.address}/{NAME}/commit/{hub.model(NAME).branches['main']}"
    assert commits(hub) == 1 and state(trained) == before and not hub.model(NAME).private
    files = hub.files(NAME)
    assert {
        ".gitattributes", "README.md", "arguments.yaml", "config.json", "encoded_videos.py", "model.safetensors",
        "modeling_hcmi.py", "pipeline_hcmi.py", "processing_hcmi.py", "processor_config.json", "result.json",
        "tokenizer.json", "tokenizer_config.json", "video_reading.py",
    } <= set(files)  # fmt: skip
    config = json.loads(files["config.json"])
    assert config["auto_map"] == {"AutoConfig": "configuration_hcmi.HCMIConfig", "AutoModel": "modeling_hcmi.HCMIModel"}
    pipeline = {"impl": "pipeline_hcmi.HCMIRetrievalPipeline", "pt": ["AutoModel"], "type": "multimodal"}
    assert config["custom_pipelines"] == {"text-video-retrieval": pipeline}
    assert json.loads(files["processor_config.json"])["auto_map"] == {"AutoProcessor": "processing_hcmi.HCMIProcessor"}
    result = json.loads(files["result.json"])
    assert result["model"] == NAME
    assert result["levels"] == json.loads((trained / "result.json").read_text())["levels"]
    assert yaml.safe_load(files["arguments.yaml"])["epochs"] == 2
    ModelCard(files["README.md"].decode()).validate()


def test_nothing_of_this_machine_and_no_token_is_published_or_kept(trained, hub, tmp_path, monkeypatch, capfd, caplog):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    publish(trained, NAME, token=TOKEN)
    assert not list(scratch.iterdir())
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
    for path, content in hub.files(NAME).items():
        for private in (TOKEN, str(trained), str(trained.parents[2]), str(Path.home()) + "/"):
            assert private.encode() not in content, path
    out, err = capfd.readouterr()
    assert TOKEN not in out + err + caplog.text


def test_a_models_folder_finds_its_run(trained, hub):
    publish(trained / "model", NAME)
    assert "result.json" in hub.files(NAME)


def test_a_model_without_a_run_says_so(trained, hub, tmp_path):
    shutil.copytree(trained / "model", tmp_path / "alone")
    publish(tmp_path / "alone", NAME)
    assert "result.json" not in hub.files(NAME)
    assert "Nothing was measured with this model." in hub.files(NAME)["README.md"].decode()


def test_the_same_again_changes_nothing(trained, hub):
    publish(trained, NAME)
    publish(trained, NAME)
    assert commits(hub) == 1 and hub.asked("PUT", "/lfs/") == 1


def test_large_weights_are_sharded_and_older_ones_go(trained, hub, tmp_path):
    publish(trained, NAME)
    HfApi().upload_file(repo_id=NAME, path_in_repo="notes.txt", path_or_fileobj=b"mine")
    publish(trained, NAME, max_shard_size="200KB")
    files = hub.files(NAME)
    assert "model.safetensors" not in files and "notes.txt" in files
    assert "model-00001-of-00003.safetensors" in files and "model.safetensors.index.json" in files
    loaded, here = HCMIModel.from_pretrained(NAME), HCMIModel.from_pretrained(trained / "model")
    for name, tensor in here.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_recalls_on_a_data_set_of_the_hub_are_read_by_it(trained, hub, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    file = tmp_path / "run" / "result.json"
    result = json.loads(file.read_text()) | {"benchmark": "msrvtt", "complete": True}
    file.write_text(json.dumps(result))
    publish(tmp_path / "run", NAME)
    wanted = round(result["levels"]["combined"]["text_to_video"]["R@5"], 2)
    found = {own.task_id: own for own in HfApi().model_info(NAME, expand=["evalResults"]).eval_results}
    assert len(found) == 6 and found["text_to_video_recall_at_5"].value == wanted
    card = ModelCard.load(NAME)
    card.validate()
    index = {(own.task_type, own.metric_name): own for own in card.data.eval_results}
    assert len(index) == 10 and index["text-to-video-retrieval", "R@5"].metric_value == wanted
    assert (
        {own.dataset_id for own in found.values()}
        == {"friedrichor/MSR-VTT"}
        == {own.dataset_type for own in index.values()}
    )
    publish(trained, NAME)
    assert not [path for path in hub.files(NAME) if path.startswith(".eval_results/")]


def test_private_stays_private(trained, hub):
    publish(trained, NAME, private=True)
    assert hub.model(NAME).private
    with pytest.raises(PublishingError, match="does not accept the token"):
        publish(trained, NAME, token="hf_another")
    hub.model(NAME).private = False
    with pytest.raises(ValueError, match="exists and is public"):
        publish(trained, NAME, private=True)
    assert commits(hub) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/repos/create", 500),
        ("POST", "/api/repos/create", 0),
        ("POST", "/api/validate-yaml", 502),
        ("POST", "/preupload/", 503),
        ("PUT", "/lfs/", 0),
        ("POST", "/commit/", 503),
        ("POST", "/commit/", 0),
        ("POST", "/commit/", 429),
    ],
)
def test_what_passes_is_tried_again(trained, hub, waits, method, path, status):
    hub.fail(method, path, status, times=2)
    publish(trained, NAME)
    assert commits(hub) == 1 and not hub.failures
    assert waits and max(waits) <= max(RETRY_AFTER)


def test_a_proxys_error_page_is_tried_again(trained, hub, waits, monkeypatch):
    real = HfApi.create_commit

    def create_commit(self, *args, **kwargs):
        return json.loads("<html>") if not waits else real(self, *args, **kwargs)

    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    publish(trained, NAME)
    assert commits(hub) == 1 and waits == [RETRY_AFTER[0]]


def test_a_failed_upload_says_how_to_go_on_and_goes_on(trained, hub, waits):
    before = state(trained)
    hub.fail("POST", "/commit/", 503, times=100)
    with pytest.raises(PublishingError) as caught:
        publish(trained, NAME, private=True)
    assert f"To try again: hcmi publish {trained} {NAME} --private" in str(caught.value)
    assert "503" in str(caught.value) and NAME in str(caught.value)
    assert commits(hub) == 0 and state(trained) == before
    assert hub.asked("POST", "/commit/") == len(RETRY_AFTER) + 1 and waits == list(RETRY_AFTER)
    hub.failures.clear()
    publish(trained, NAME, private=True)
    assert commits(hub) == 1
    assert hub.asked("PUT", "/lfs/") == 1, "the weights had arrived already"


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/repos/create"), ("PUT", "/lfs/"), ("POST", "/commit/")])
def test_a_hub_that_keeps_silent_is_given_up(trained, hub, waits, monkeypatch, method, path):
    monkeypatch.setattr(hub_waiting, "LIMITS", dict.fromkeys(hub_waiting.LIMITS, 0.3))
    monkeypatch.setattr(hub_waiting, "SILENCE", 0.8)
    hub.fail(method, path, SILENT, times=100)
    with pytest.raises(PublishingError) as caught:
        publish(trained, NAME)
    assert re.search(f"{hub.address} has not answered for|timed out", str(caught.value))
    assert f"To try again: hcmi publish {trained} {NAME}" in str(caught.value)
    assert not hub.repositories or commits(hub) == 0
    assert sum(failure[2] == SILENT for failure in hub.failures) > 95


def test_an_answer_that_is_lost_makes_no_second_commit(trained, hub, waits, monkeypatch):
    real = HfApi.create_commit

    def create_commit(self, *args, **kwargs):
        done = real(self, *args, **kwargs)
        if not waits:
            raise type("ReadTimeout", (type("TransportError", (Exception,), {}),), {})("no answer")
        return done

    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    assert publish(trained, NAME).endswith(hub.model(NAME).branches["main"])
    assert commits(hub) == 1 and waits


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [
        ("somebody/tiny", None, "somebody/tiny was not published: the token may not write there. The files in"),
        (NAME, "hf_wrong", "the Hub does not accept the token, or there is none: log in with `hf auth login`"),
    ],
)
def test_refusals_are_told_at_once(trained, hub, waits, name, token, message):
    with pytest.raises(PublishingError) as caught:
        publish(trained, name, token=token)
    assert message in str(caught.value) and "hf_wrong" not in str(caught.value)
    assert not waits


def test_without_a_token_too(trained, hub, waits, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PublishingError, match="or there is none: log in with `hf auth login`"):
        create_repository(NAME)
    assert not waits


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "tester/ti ny", "tester/--x", ""])
def test_impossible_names_are_refused(trained, hub, name):
    with pytest.raises(ValueError, match="is no name on the Hub"):
        publish(trained, name)
    assert not hub.repositories


@pytest.mark.parametrize("token", ["hf_secret\nsecond line", "hf_secreté", ""])
def test_what_is_no_token_is_refused_unseen(trained, hub, token):
    with pytest.raises(ValueError, match="characters that no token") as caught:
        publish(trained, NAME, token=token)
    assert "secret" not in str(caught.value)


def test_broken_models_are_not_published(trained, hub, tmp_path):
    with pytest.raises(ValueError, match="neither a model's folder nor a training run's"):
        publish(tmp_path, NAME)
    shutil.copytree(trained, tmp_path / "run")
    weights = tmp_path / "run" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"the weights cannot be read: .*not fully covered"):
        publish(tmp_path / "run", NAME)
    assert not hub.repositories
