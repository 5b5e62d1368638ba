import errno
import resource
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import save_file
from tiny_hcmi import tiny_model

from hcmi.modeling_hcmi import HCMIModel
from hcmi.processing import HCMIProcessor
from hcmi.train.checkpoints import Checkpoints, damage_of, recover_model, save_model


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
        if self.name == ".model.new":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PermissionError):
        save_model(tiny_model(seed=2), processor, saved)
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_what_a_killed_exchange_left_is_put_right(processor, saved):
    saved.rename(saved.with_name(".model.old"))
    saved.with_name(".model.new").mkdir()
    recover_model(saved)
    assert equal(weights(saved), tiny_model(seed=1).state_dict())
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    # Killed a moment later: the new one has its name, the old one is not yet gone.
    saved.with_name(".model.old").mkdir()
    recover_model(saved)
    assert equal(weights(saved), tiny_model(seed=1).state_dict())
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_safetensors_own_error_is_one_of_the_system(processor, saved, monkeypatch):
    def save_pretrained(*_, **__):
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(HCMIModel, "save_pretrained", save_pretrained)
    with pytest.raises(OSError, match=r"cannot be written to .*model: No space left"):
        save_model(tiny_model(seed=2), processor, saved)


@pytest.fixture
def many(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", 2, Accelerator(cpu=True))


def save(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_bytes(b"0123456789")
    (folder / "step").write_text("one")


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_newest_are_kept(many):
    assert many.newest_good() is None
    for step in (5, 90, 100):
        assert many.write(step, save) is None
    assert names(many) == ["step-00000090", "step-00000100"] == [path.name for path in many.all()]
    assert many.newest_good() == many.folder / "step-00000100"
    assert damage_of(many.folder / "step-00000090") is None


def full(kind):
    def half(folder):
        save(folder)
        raise kind

    return half


@pytest.mark.parametrize(
    "kind", [OSError(errno.ENOSPC, "No space left"), RuntimeError("No space left"), SafetensorError("No space left")]
)
def test_a_full_disk_is_told_and_the_older_ones_stay(many, kind):
    many.write(1, save)
    many.write(2, save)
    assert "No space left" in many.write(3, full(kind))
    assert names(many) == ["step-00000001", "step-00000002"]
    assert many.newest_good() == many.folder / "step-00000002"
    assert many.write(4, save) is None
    assert names(many) == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize("write", [save_file, torch.save, lambda tensors, path: path.write_bytes(bytes(200_000))])
def test_what_libraries_say_of_a_file_that_finds_no_room(many, write):
    many.write(1, save)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        assert many.write(2, lambda folder: write({"zeros": torch.zeros(100_000)}, folder / "file"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert names(many) == ["step-00000001"]


def test_a_folder_that_cannot_be_made_is_told(many):
    many.folder.write_text("a file is in the way")
    assert "File exists" in many.write(1, save) or "Not a directory" in many.write(1, save)


def test_mistakes_in_the_saving_are_no_full_disk(many):
    def wrong(folder):
        raise TypeError("no")

    with pytest.raises(TypeError):
        many.write(1, wrong)


@pytest.mark.parametrize("hurt", ["changed", "longer", "gone", "no manifest", "a list for a manifest"])
def test_damage_is_found_and_passed_over(many, hurt):
    many.write(1, save)
    many.write(2, save)
    newest = many.folder / "step-00000002"
    file = newest / "sub" / "weights"
    if hurt == "changed":
        file.write_bytes(b"012345678x")
    elif hurt == "longer":
        file.write_bytes(b"0123456789x")
    elif hurt == "gone":
        file.unlink()
    elif hurt == "no manifest":
        (newest / "manifest.json").unlink()
    else:
        (newest / "manifest.json").write_text("[]")
    with pytest.warns(UserWarning, match="step-00000002 is damaged"):
        assert many.newest_good() == many.folder / "step-00000001"


def test_going_back_removes_what_came_later(many):
    many.write(1, save)
    many.write(2, save)
    (many.folder / ".step-00000003.part").mkdir()
    many.discard_after(many.folder / "step-00000001")
    assert names(many) == ["step-00000001"]
    many.discard_after(many.folder / "step-00000001")
    assert many.newest_good() == many.folder / "step-00000001"
