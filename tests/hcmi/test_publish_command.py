import time

import pytest
from hub_client import point_client_at
from hub_server import serve_hub
from hub_state import TOKEN
from saved_hcmi import save_tiny_hcmi

from hcmi.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return save_tiny_hcmi(tmp_path_factory.mktemp("model"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serve_hub() as server:
        point_client_at(server, tmp_path / "home", monkeypatch)
        yield server


def test_a_model_is_published_and_its_address_told(folder, hub, capsys):
    assert main(["publish", folder, "tester/tiny"]) == 0
    out, err = capsys.readouterr()
    repository = hub.model("tester/tiny")
    assert f"published: {hub.address}/tester/tiny/commit/{repository.branches['main']}" in out
    assert not repository.private and TOKEN not in out + err


def test_private_is_passed_on(folder, hub):
    assert main(["publish", folder, "tester/tiny", "--private"]) == 0
    assert hub.model("tester/tiny").private


def test_a_failure_is_one_line_with_the_command_to_try_again(folder, hub, monkeypatch, capsys):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.fail("POST", "/commit/", 500, times=100)
    assert main(["publish", folder, "tester/tiny", "--private"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hcmi publish: error:")]
    assert f"To try again: hcmi publish {folder} tester/tiny --private" in line and TOKEN not in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "tester/tiny"], "nowhere is neither a model's folder nor a training run's"),
        (["FOLDER", "tiny"], "'tiny' is no name on the Hub: it has to be owner/name"),
        (["FOLDER", "somebody/tiny"], "somebody/tiny was not published: the token may not write there"),
    ],
)
def test_impossible_wishes_are_one_line(folder, hub, words, message, capsys):
    assert main(["publish", *(folder if word == "FOLDER" else word for word in words)]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hcmi publish: error:")]
    assert len(lines) == 1 and message in lines[0]


def test_no_option_takes_a_token(capsys):
    with pytest.raises(SystemExit):
        main(["publish", "--help"])
    out = capsys.readouterr().out
    assert "--private" in out and "--token" not in out and "HF_TOKEN" in out
