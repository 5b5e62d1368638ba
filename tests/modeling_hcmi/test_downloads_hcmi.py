"""Against a folder like that of the Hub's client; with a server, see tests/hcmi/test_loading_from_hub.py."""

import hashlib
from pathlib import Path

import pytest

from hcmi.modeling_hcmi.downloads_hcmi import checked_downloads


@pytest.fixture
def blobs(tmp_path) -> Path:
    folder = tmp_path / "models--owner--name" / "blobs"
    folder.mkdir(parents=True)
    return folder


def put(blobs: Path, content: bytes, named_after: bytes) -> Path:
    file = blobs / hashlib.sha256(named_after).hexdigest()
    file.write_bytes(content)
    return file


def test_what_arrives_as_it_is_named_stays(blobs, tmp_path):
    with checked_downloads("owner/name", tmp_path):
        file = put(blobs, b"weights", b"weights")
        (blobs / "0123abc").write_bytes(b"a small file, named after git's hash")
    assert file.exists() and len(list(blobs.iterdir())) == 2


def test_what_arrives_as_another_is_removed_and_told(blobs, tmp_path):
    said = r"owner/name: what was downloaded is not what the Hub has .*SHA-256"
    with pytest.raises(ValueError, match=said), checked_downloads("owner/name", tmp_path):
        good, *wrong = put(blobs, b"a", b"a"), put(blobs, b"b", b"B"), put(blobs, b"c", b"C")
    assert [file.exists() for file in (good, *wrong)] == [True, False, False]


def test_it_is_told_first_of_all_that_goes_wrong(blobs, tmp_path):
    with pytest.raises(ValueError, match="SHA-256") as caught, checked_downloads("owner/name", tmp_path):
        put(blobs, b"b", b"B")
        raise RuntimeError("no header")
    assert isinstance(caught.value.__context__, RuntimeError)


def test_what_was_there_before_is_not_read(blobs, tmp_path):
    file = put(blobs, b"b", b"B")
    with checked_downloads("owner/name", tmp_path):
        pass
    assert file.exists()


@pytest.mark.parametrize("kind", ["folder", "nothing", "not downloaded yet"])
def test_where_nothing_is_downloaded_nothing_is_checked(tmp_path, kind):
    name = {"folder": tmp_path / ("long" * 50), "nothing": None, "not downloaded yet": "owner/name"}[kind]
    if kind == "folder":
        name.mkdir()
    with checked_downloads(name, tmp_path):
        pass
