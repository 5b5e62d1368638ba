"""The recipes of the five benchmarks, each run on a miniature copy of its benchmark with a random CLIP."""

from pathlib import Path

import datasets
import pytest
import yaml
from accelerate.state import AcceleratorState, GradientState
from miniature_benchmarks import Miniature, expect_miniature_counts, write_miniature

from hcmi.cli import main
from hcmi.train.arguments import TrainingArguments
from hcmi.train.data.benchmarks import protocols
from hcmi.train.results import load_result

CONFIGS = Path(__file__).parents[2] / "train" / "configs"
BACKBONES = {"vit_b32": "openai/clip-vit-base-patch32", "vit_b16": "openai/clip-vit-base-patch16"}
BENCHMARKS = ("msrvtt", "msvd", "lsmdc", "didemo", "activitynet")
LONG = ("didemo", "activitynet")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def train(config: str, miniature: Miniature, clip: Path, output: Path, *more: str) -> int:
    """Status of an epoch by a recipe, on the CPU."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    words = ["train", "--config", CONFIGS / f"{config}.yaml", "--model", clip, "--output", output]
    words += ["--annotations", miniature.annotations, "--videos", miniature.videos, "--tracker", "none"]
    words += ["--epochs", 1, "--batch_size", 4, "--num_workers", 0, "--cpu", "true", "--cpu_threads", 1]
    return main([str(word) for word in (*words, *more)])


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_recipe_trains_validates_tests_and_prints_its_protocol(
    benchmark, backbone, long_clip_folder, tmp_path, monkeypatch, capsys
):
    miniature = write_miniature(benchmark, tmp_path / "data")
    expect_miniature_counts(monkeypatch, miniature)
    assert train(f"{benchmark}_{backbone}", miniature, long_clip_folder, tmp_path / "run") == 0

    result = load_result(tmp_path / "run" / "result.json")
    protocol = next(iter(protocols(benchmark)))
    videos, captions = miniature.counts[protocol, "test"]
    assert (result["benchmark"], result["split"], result["protocol"]) == (benchmark, "test", protocol)
    assert (result["counts"]["videos"], result["counts"]["texts"]) == (videos, captions)
    assert result["complete"] and result["missing_videos"] == 0
    assert result["expected"] == {"videos": [videos, videos], "captions": [captions, captions]}
    training = result["training"]
    assert training["steps"] == training["pairs"] // 4 >= 2
    trained, held_out = training["videos"], training["held_out"]
    assert trained + held_out == miniature.counts[protocol, "train"][0]
    # The validation videos of MSR-VTT 1k-A lie inside its training list.
    assert held_out == (miniature.counts[protocol, "validation"][0] if benchmark == "msrvtt" else 0)
    assert training["chosen_by"].startswith("fixed" if benchmark == "activitynet" else "validation")
    printed = capsys.readouterr().out
    for part in (protocols(benchmark)[protocol].description, f"{videos} videos", "text -> video", "video -> text"):
        assert part in printed


def test_a_missing_test_video_is_told_before_training_and_marks_the_result(
    long_clip_folder, tmp_path, monkeypatch, capsys
):
    miniature = write_miniature("msvd", tmp_path / "data")
    expect_miniature_counts(monkeypatch, miniature)
    missing = sorted(miniature.videos.rglob("*.*"))[-1]
    missing.unlink()
    assert train("msvd_vit_b32", miniature, long_clip_folder, tmp_path / "run") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert missing.stem in error and str(miniature.videos) in error and "allow_missing" in error
    assert not (tmp_path / "run").exists()

    assert train("msvd_vit_b32", miniature, long_clip_folder, tmp_path / "run", "--allow_missing", "true") == 0
    result = load_result(tmp_path / "run" / "result.json")
    assert (result["complete"], result["missing_videos"], result["counts"]["videos"]) == (False, 1, 3)
    assert result["expected"]["videos"] == [4, 4]
    assert "NOT COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_recipe_is_the_published_one(benchmark, backbone):
    # CLIP4Clip, DRL and X-CLIP train CLIP this way.
    fields = yaml.safe_load((CONFIGS / f"{benchmark}_{backbone}.yaml").read_text())
    arguments = TrainingArguments(**fields)
    assert (arguments.benchmark, arguments.protocol) == (benchmark, next(iter(protocols(benchmark))))
    assert arguments.model == BACKBONES[backbone]
    long = benchmark in LONG
    assert (arguments.frames_per_video, arguments.max_words, arguments.epochs) == (
        (64, 64, 20) if long else (12, 32, 5)
    )
    assert arguments.epoch_over == "captions"
    assert (arguments.batch_size, arguments.warmup_share, arguments.weight_decay) == (128, 0.1, 0.2)
    assert (arguments.learning_rate, arguments.tower_learning_rate) == (1e-4, 1e-7)
    assert arguments.choose == (
        "last" if "validation" not in protocols(benchmark)[arguments.protocol].splits else "validation"
    )
    assert arguments.output == f"runs/{benchmark}_{backbone}"
