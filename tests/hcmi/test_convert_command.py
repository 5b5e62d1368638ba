"""A converted checkpoint retrieves at once, and exactly as the dual encoder does with the mean of the frames."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hub_client import point_client_at
from hub_server import serve_hub
from saved_hcmi import write_video
from tiny_backbones import save_backbone, tiny_backbone_tokenizer
from torch.nn.functional import normalize
from transformers import AutoTokenizer, pipeline

from hcmi import HCMIModel, HCMIProcessor
from hcmi.cli import main
from hcmi.conversion import convert_clip
from hcmi.train.data.frame_sources import VideoFrames
from hcmi.train.evaluation import evaluate
from hcmi.train.saved_models import load_whole_model

KINDS = ("clip", "siglip", "siglip 2")
QUERIES = ["a red ring", "blue square", "ring then a", "a a blue", "square red", "then a ring"]


@pytest.fixture(scope="module", params=KINDS)
def converted(request, tmp_path_factory):
    """A dual encoder, its kind, and the folder of the HCMI that the command has made of it."""
    folder = tmp_path_factory.mktemp("convert")
    encoder = save_backbone(request.param, folder / "encoder")
    assert main(["convert", "--clip", str(folder / "encoder"), str(folder / "out"), "--frames", "4"]) == 0
    return encoder, request.param, folder / "out"


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / f"{seed}.mp4", frames=6 + seed, seed=seed) for seed in range(6)]


@torch.no_grad()
def mean_pooled(encoder, kind: str, queries, videos) -> torch.Tensor:
    """Cosines (queries, videos) by the dual encoder alone, given frames `(F, 3, H, W)` as its image processor makes."""
    full = {"padding": "max_length", "max_length": 24} if kind.startswith("siglip") else {"padding": True}
    texts = tiny_backbone_tokenizer(kind)(list(queries), truncation=True, return_tensors="pt", **full)
    sentences = encoder.get_text_features(**texts).pooler_output
    means = torch.stack([encoder.get_image_features(frames).pooler_output.mean(0) for frames in videos])
    return normalize(sentences, dim=-1) @ normalize(means, dim=-1).T


def test_the_pipeline_ranks_files_as_the_mean_pooled_encoder_does(converted, videos):
    encoder, kind, folder = converted
    frames = HCMIProcessor.from_pretrained(folder)(videos=videos, return_tensors="pt")["pixel_values_videos"]
    wanted = mean_pooled(encoder, kind, QUERIES, frames)
    found = pipeline("text-video-retrieval", model=str(folder), device="cpu")(QUERIES, videos=videos, top_k=None)
    for hits, scores in zip(found, wanted, strict=True):
        assert [hit["video"] for hit in hits] == [videos[row] for row in scores.argsort(descending=True)]
        best = scores.sort(descending=True).values.tolist()
        assert [hit["score"] for hit in hits] == pytest.approx(best, abs=1e-4)


def test_evaluation_gives_the_mean_pooled_encoders_ranks(converted):
    encoder, kind, folder = converted
    model, processor = load_whole_model(str(folder), torch.device("cpu")), HCMIProcessor.from_pretrained(folder)
    count = 20
    colours = torch.randint(0, 256, (count, 4, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    raw = colours.repeat_interleave(8, -1).repeat_interleave(8, -2)
    short = ("a", "red", "blue", "ring", "then")
    captions = [f"{short[row % 5]} {short[row // 5]}" for row in range(count)]
    measured = evaluate(
        model,
        processor,
        Dataset.from_list([{"video_id": f"v{row}", "captions": [text]} for row, text in enumerate(captions)]),
        frames_for=lambda row: VideoFrames(raw[row], torch.arange(4.0).double(), (0.0, 4.0)),
        show_progress=False,
    )
    frames = processor(videos=list(raw), return_tensors="pt")["pixel_values_videos"]
    wanted = mean_pooled(encoder, kind, captions, frames)
    assert (wanted - wanted.diagonal()[:, None]).fill_diagonal_(1).abs().min() > 1e-5  # no rank hangs on rounding
    ranks = (wanted > wanted.diagonal()[:, None]).sum(1) + 1
    figures = measured["levels"]["combined"]["text_to_video"]
    for k in (1, 5, 10):
        assert figures[f"R@{k}"] == pytest.approx((ranks <= k).double().mean().item() * 100)
    assert figures["MnR"] == pytest.approx(ranks.double().mean().item())
    assert 1 < figures["MnR"] < count


def test_the_folder_is_complete_and_its_parts_fit(converted):
    _, _, folder = converted
    model, processor = HCMIModel.from_pretrained(folder), HCMIProcessor.from_pretrained(folder)
    assert (processor.frames_per_video, model.config.max_frames) == (4, 64)
    assert model.config.image_mean == pytest.approx(list(processor.image_processor.image_mean))
    assert model.config.image_std == pytest.approx(list(processor.image_processor.image_std))
    tokens = processor(text=["a red ring", "then"], return_tensors="pt")
    assert set(tokens) == {"input_ids", "attention_mask"}
    assert tokens["attention_mask"].sum(1)[0] > tokens["attention_mask"].sum(1)[1]
    with pytest.warns(UserWarning, match="1 of 1 texts were cut to 24 tokens"):
        assert processor(text=["ring " * 30], return_tensors="pt")["input_ids"].shape == (1, 24)


def test_the_last_lines_say_what_to_do_next(tmp_path, capsys):
    save_backbone("clip", tmp_path / "encoder")
    out = tmp_path / "empty"
    out.mkdir()
    assert main(["convert", "--clip", str(tmp_path / "encoder"), str(out), "--max-frames", "12"]) == 0
    told = capsys.readouterr()
    assert f"loading {tmp_path / 'encoder'}" in told.err and f"writing {out}" in told.err
    for verb in ("find", "eval", "train"):
        assert f"  hcmi {verb} " in told.out and f"{out} " in told.out
    assert HCMIModel.from_pretrained(out).config.max_frames == 12
    again = tmp_path / "again"
    assert main(["convert", "--clip", str(tmp_path / "encoder"), str(again), "--max-frames", "12"]) == 0
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_a_name_on_the_hub_and_one_of_its_revisions(tmp_path, monkeypatch):
    encoder = save_backbone("clip", tmp_path / "encoder")
    older = {file.name: file.read_bytes() for file in (tmp_path / "encoder").iterdir()}
    with torch.no_grad():
        encoder.visual_projection.weight.mul_(2)
    encoder.save_pretrained(tmp_path / "encoder")
    with serve_hub() as hub:
        point_client_at(hub, tmp_path / "home", monkeypatch)
        hub.put("tester/clip", older)
        repository = hub.model("tester/clip")
        repository.tags["v1"] = repository.branches["main"]
        newer = hub.store((tmp_path / "encoder" / "model.safetensors").read_bytes(), lfs=True)
        repository.commit("main", repository.commits[repository.tags["v1"]] | {"model.safetensors": newer})
        for out, words in (("newer", []), ("older", ["--revision", "v1"])):
            assert main(["convert", "--clip", "tester/clip", str(tmp_path / out), *words]) == 0
    for out, factor in (("newer", 1), ("older", 2)):
        weight = HCMIModel.from_pretrained(tmp_path / out).visual_projection.weight
        assert torch.equal(factor * weight, encoder.visual_projection.weight)


def failure(capsys, *argv: object) -> str:
    assert main(["convert", *map(str, argv)]) == 1
    return capsys.readouterr().err.splitlines()[-1]


def test_a_folder_in_use_is_refused_before_anything_is_loaded(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert f"{out} is already there and not empty" in failure(capsys, "--clip", "nobody/nothing", out)
    assert "is already there" in failure(capsys, "--clip", "nobody/nothing", out / "notes.txt")
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_what_cannot_be_converted_leaves_nothing_behind(tmp_path, capsys):
    save_backbone("siglip", tmp_path / "encoder")
    Path(tmp_path / "encoder" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(Exception, match=r"(?i)header|deserializ"):
        main(["convert", "--clip", str(tmp_path / "encoder"), str(tmp_path / "out")])
    save_backbone("clip", tmp_path / "mixed")
    (tmp_path / "mixed" / "preprocessor_config.json").write_text(
        (tmp_path / "mixed" / "preprocessor_config.json").read_text().replace("16", "24")
    )
    assert "do not fit each other" in failure(capsys, "--clip", tmp_path / "mixed", tmp_path / "out")
    assert "--frames" in failure(capsys, "--clip", tmp_path / "mixed", tmp_path / "out", "--frames", "65")
    assert {path.name for path in tmp_path.iterdir()} == {"encoder", "mixed"}


def save_with_siglips_tokenizer(folder: Path) -> None:
    """A SigLIP whose tokenizer is its own kind, over the letters of `QUERIES`."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the optional package sentencepiece")
    save_backbone("siglip", folder)
    (folder / "tokenizer.json").unlink()
    text = iter(QUERIES * 50)
    kinds = {
        "eos_id": 1,
        "unk_id": 2,
        "bos_id": -1,
        "pad_id": -1,
        "control_symbols": ["<s>"],
        "hard_vocab_limit": False,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=text, model_prefix=str(folder / "spiece"), vocab_size=60, minloglevel=2, **kinds
    )
    settings = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 24, "model_input_names": ["input_ids"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_siglips_own_tokenizer_comes_along(tmp_path):
    save_with_siglips_tokenizer(tmp_path / "encoder")
    assert main(["convert", "--clip", str(tmp_path / "encoder"), str(tmp_path / "out")]) == 0
    own, processor = (
        AutoTokenizer.from_pretrained(tmp_path / "encoder"),
        HCMIProcessor.from_pretrained(tmp_path / "out"),
    )
    assert type(processor.tokenizer).__name__ == type(own).__name__ == "SiglipTokenizer"
    texts = ["A red, red ring!", "then"]
    tokens = processor(text=texts, return_tensors="pt")
    for text, ids, mask in zip(texts, tokens["input_ids"], tokens["attention_mask"], strict=True):
        assert ids[mask.bool()].tolist() == own(text)["input_ids"]
    config = HCMIModel.from_pretrained(tmp_path / "out").config
    assert (config.text_config.pad_token_id, config.text_config.eos_token_id) == (1, 1)


def test_a_package_that_the_tokenizer_needs_is_named_before_the_weights_are_loaded(tmp_path, monkeypatch, capsys):
    save_backbone("siglip", tmp_path / "encoder")
    (tmp_path / "encoder" / "model.safetensors").write_bytes(b"broken")
    told = "\nSiglipTokenizer requires the SentencePiece library but it was not found. Check out\nthe instructions"

    def fail(name, **options):
        raise ImportError(told)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
    line = failure(capsys, "--clip", tmp_path / "encoder", tmp_path / "out")
    assert "(SiglipTokenizer requires the SentencePiece library but it was not found)" in line
    assert 'pip install "hcmi[siglip]"' in line


def test_more_frames_than_the_model_takes_are_refused(tmp_path):
    save_backbone("clip", tmp_path)
    with pytest.raises(ValueError, match=r"9 frames a video .*\(8\)"):
        convert_clip(str(tmp_path), frames_per_video=9, config_overrides={"max_frames": 8})
