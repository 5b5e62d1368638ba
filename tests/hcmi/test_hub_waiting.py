"""Who keeps silent is given up; no test here ends but by that."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hub_client import point_client_at
from hub_server import serve_hub
from hub_state import SILENT
from huggingface_hub import constants, get_session, set_client_factory
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import _http
from saved_hcmi import save_tiny_hcmi

from hcmi import HCMIModel, hub_waiting
from hcmi.conversion import convert_clip
from hcmi.hub_waiting import LIMITS, SILENCE, _limited_client

NAME = "tester/tiny"


class Silence(type("TimeoutException", (Exception,), {})):  # type: ignore[misc]
    """What a client raises, whichever package it stands on."""


class Client:
    """Answers, or lets so many seconds pass and gives up."""

    def __init__(self, clock: list[float]):
        self.clock = clock
        self.limits: list[dict] = []
        self.patience: float | None = None

    def send(self, request):
        self.limits.append(request.extensions["timeout"])
        if self.patience is None:
            return "answer"
        self.clock[0] += self.patience
        raise Silence


def request(server: str = "a.org", **limits: float | None) -> SimpleNamespace:
    return SimpleNamespace(url=SimpleNamespace(scheme="https", netloc=server.encode()), extensions={"timeout": limits})


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def client(clock) -> Client:
    own = Client(clock)
    return _limited_client(lambda: own, {})


def test_limits_that_are_not_set_are_set_and_others_kept(client):
    assert client.send(request(connect=None, read=None, write=5.0)) == "answer"
    assert client.limits == [LIMITS | {"write": 5.0}]
    assert all(0 < limit <= SILENCE for limit in LIMITS.values())


def test_a_server_that_stays_silent_counts_as_offline_for_a_while(client, clock):
    client.patience = 0.6 * SILENCE
    for _ in range(2):
        with pytest.raises(Silence):
            client.send(request())
    with pytest.raises(OfflineModeIsEnabled, match=rf"^https://a\.org has not answered for {1.2 * SILENCE:.0f} sec"):
        client.send(request())
    assert len(client.limits) == 2, "it is not even asked"
    client.patience = None
    assert client.send(request("b.org")) == "answer"
    clock[0] += SILENCE
    assert client.send(request()) == "answer"
    assert client.send(request()) == "answer"


def test_silence_begins_anew_after_an_answer_and_after_a_pause(client, clock):
    for between in (lambda: client.send(request()), lambda: clock.__setitem__(0, clock[0] + SILENCE)):
        client.patience = 0.6 * SILENCE
        with pytest.raises(Silence):
            client.send(request())
        client.patience = None
        between()
    client.patience = 0.6 * SILENCE
    for _ in range(2):
        with pytest.raises(Silence):
            client.send(request())


def test_other_failures_are_no_silence(client, monkeypatch):
    def fail(request):
        raise ConnectionResetError

    broken = _limited_client(lambda: SimpleNamespace(send=fail), {})
    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            broken.send(request())


def test_the_client_that_the_user_has_chosen_is_kept(monkeypatch):
    factory = _http._GLOBAL_CLIENT_FACTORY
    kind, made = type(get_session()), []

    def choose():
        made.append(kind(headers={"x-chosen": "yes"}))
        return made[-1]

    try:
        set_client_factory(choose)
        hub_waiting.limit_waiting()
        assert get_session() is made[0] and get_session().headers["x-chosen"] == "yes"
        assert get_session().send.func is hub_waiting._send
    finally:
        set_client_factory(factory)
    assert get_session().send.func is hub_waiting._send, "the package has limited the Hub's own client"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub whose silence is noticed soon."""
    monkeypatch.setattr(hub_waiting, "LIMITS", dict.fromkeys(LIMITS, 0.3))
    monkeypatch.setattr(hub_waiting, "SILENCE", 1.0)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    with serve_hub() as server:
        point_client_at(server, tmp_path / "home", monkeypatch)
        yield server


def keep_silent(hub) -> None:
    for method in ("GET", "HEAD", "POST", "PUT"):
        hub.fail(method, "/", SILENT, times=100)


@pytest.mark.parametrize("load", [HCMIModel.from_pretrained, convert_clip])
def test_loading_from_a_silent_hub_ends_with_an_error(hub, load):
    keep_silent(hub)
    with pytest.raises(OSError, match=f"couldn't connect to '{hub.address}'"):
        load(NAME)


def test_a_silent_hub_does_not_keep_from_loading_what_the_cache_has(hub, tmp_path):
    folder = Path(save_tiny_hcmi(tmp_path / "model"))
    hub.put(NAME, {file.name: file.read_bytes() for file in folder.iterdir()})
    before = HCMIModel.from_pretrained(NAME).state_dict()
    keep_silent(hub)
    after = HCMIModel.from_pretrained(NAME).state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
