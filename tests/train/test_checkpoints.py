import errno
from pathlib import Path

import pytest
import torch
from tiny_hcmi import tiny_model

from hcmi.modeling_hcmi import HCMIModel
from hcmi.processing import HCMIProcessor
from hcmi.train.checkpoints import save_model


def weights(folder):
    return HCMIModel.from_pretrained(folder).state_dict()


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def saved(processor, tmp_path) -> Path:
    save_model(tiny_model(seed=1), processor, tmp_path / "model")
    return tmp_path / "model"


def test_model_and_processor_come_back(processor, saved):
    assert equal(weights(saved), tiny_model(seed=1).state_dict())
    again = HCMIProcessor.from_pretrained(saved)
    assert again.frames_per_video == processor.frames_per_video
    assert again.tokenizer("a ring")["input_ids"] == processor.tokenizer("a ring")["input_ids"]
    assert any(name.endswith(".safetensors") for name in contents(saved))


def test_missing_folders_are_made(processor, tmp_path):
    save_model(tiny_model(), processor, tmp_path / "runs" / "one" / "model")
    assert (tmp_path / "runs" / "one" / "model" / "config.json").is_file()


def test_an_older_model_is_replaced_whole(processor, saved):
    (saved / "older.txt").write_text("belongs to the older model")
    save_model(tiny_model(seed=2), processor, saved)
    assert equal(weights(saved), tiny_model(seed=2).state_dict())
    assert not (saved / "older.txt").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("part", [HCMIModel, HCMIProcessor])
def test_a_full_disk_leaves_the_older_model_whole_and_nothing_else(processor, saved, monkeypatch, part):
    before = contents(saved)
    real = part.save_pretrained

    def half(self, folder, **options):
        real(self, folder, **options)
        full_disk()

    monkeypatch.setattr(part, "save_pretrained", half)
    with pytest.raises(OSError, match="No space left"):
        save_model(tiny_model(seed=2), processor, saved)
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_full_disk_without_an_older_model_leaves_nothing(processor, tmp_path, monkeypatch):
    monkeypatch.setattr(HCMIProcessor, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(tiny_model(), processor, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_failing_exchange_puts_the_older_model_back(processor, saved, monkeypatch):
    before = contents(saved)
    real = Path.rename

    def rename(self, target):
        if ".new-" in self.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PermissionError):
        save_model(tiny_model(seed=2), processor, saved)
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
