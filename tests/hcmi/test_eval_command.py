import argparse
import json

import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from hcmi.cli import main
from hcmi.commands import eval as eval_command
from hcmi.modeling_hcmi import LEVELS, HCMIConfig, HCMIModel
from hcmi.processing import HCMIProcessor
from hcmi.train.data.benchmarks import load_benchmark, protocols
from hcmi.train.data.shape_stories import load_shape_stories, write_shape_stories
from hcmi.train.data.tokenizer import train_tokenizer
from hcmi.train.evaluation import evaluate
from hcmi.train.post_processing import POST_PROCESSING
from hcmi.train.results import load_result

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    sizes = {"test": 5, "train": 2}
    return write_shape_stories(tmp_path_factory.mktemp("data") / "stories", sizes=sizes, workers=1, progress=False)


@pytest.fixture(scope="module")
def processor(stories):
    captions = [caption for own in load_shape_stories(stories, "test")["captions"] for caption in own]
    image_processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return HCMIProcessor(image_processor, train_tokenizer(captions, vocab_size=300), frames_per_video=4)


@pytest.fixture(scope="module")
def towers(processor):
    tokenizer = processor.tokenizer
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {
        "text_config": TOWER | {"vocab_size": len(tokenizer), "max_position_embeddings": 77} | special,
        "vision_config": TOWER | {"image_size": 16, "patch_size": 8},
        "projection_dim": 16,
    }


@pytest.fixture
def save_model(towers, processor):
    """Folder and seed to a random model in that folder."""

    def save(folder, seed=0):
        torch.manual_seed(seed)
        HCMIModel(HCMIConfig(**towers, max_frames=6)).save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def model_folder(tmp_path, save_model):
    return save_model(tmp_path / "model")


@pytest.fixture
def runs(tmp_path, save_model):
    """Two models as training runs leave them, with the seeds 3 and 4."""
    for seed in (3, 4):
        save_model(tmp_path / f"runs/seed-{seed}/model", seed)
        (tmp_path / f"runs/seed-{seed}/arguments.yaml").write_text(f"seed: {seed}\n")
    return [str(tmp_path / f"runs/seed-{seed}/model") for seed in (3, 4)]


@pytest.fixture
def evaluate_here(tmp_path, stories, monkeypatch):
    """Runs the command in `tmp_path` on the small benchmark; the exit status."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return main(["eval", *map(str, arguments), "--annotations", str(stories), "--num-workers", "0"])

    return run


def test_eval_measures_prints_and_writes(model_folder, stories, capsys):
    arguments = [
        "eval",
        str(model_folder),
        "--benchmark",
        "shape_stories",
        "--split",
        "test",
        "--annotations",
        str(stories),
    ]
    assert main([*arguments, "--batch-size", "2", "--num-workers", "1"]) == 0
    result_file = model_folder / "eval_shape_stories_test.json"
    out = capsys.readouterr().out
    assert "text -> video: 15 queries, 5 to rank" in out and "moments" in out and str(result_file) in out

    result = load_result(result_file)
    assert (result["benchmark"], result["split"], result["seed"]) == ("shape_stories", "test", None)
    assert result["protocol"] == next(iter(protocols("shape_stories"))) and result["complete"]
    assert result["counts"]["videos"] == 5 and result["counts"]["texts"] == 15
    assert result["frames"] == {"per_video": 4, "videos_with_fewer": 0}
    assert set(result["levels"]) == {*LEVELS, "combined"}
    dataset = load_benchmark("shape_stories", "test", annotations=stories)
    assert result["moments"]["all"]["events"] == sum(len(events) for events in dataset["events"])

    model, processor = HCMIModel.from_pretrained(model_folder), HCMIProcessor.from_pretrained(model_folder)
    again = evaluate(model, processor, dataset, batch_size=5, show_progress=False)
    assert again["levels"] == result["levels"]


def test_eval_takes_frames_words_type_and_file(model_folder, stories, tmp_path):
    out = tmp_path / "results" / "short.json"
    options = ["--frames", "2", "--max-words", "8", "--dtype", "bfloat16", "--device", "cpu", "--out", str(out)]
    assert main(["eval", str(model_folder), "--annotations", str(stories), "--num-workers", "0", *options]) == 0
    result = json.loads(out.read_text())
    assert result["frames"]["per_video"] == 2 and result["dtype"] == "bfloat16"
    assert result["tokens"]["max_words"] == 8 and result["tokens"]["texts_cut"] > 0


def test_a_broken_video_is_refused_by_name(model_folder, tmp_path, capsys):
    folder = write_shape_stories(tmp_path / "stories", sizes={"test": 2}, workers=1, progress=False)
    broken = load_shape_stories(folder, "test")[1]
    with open(broken["video"], "wb") as file:
        file.write(b"no video")
    assert main(["eval", str(model_folder), "--annotations", str(folder), "--num-workers", "0"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("hcmi eval: error:") and broken["video_id"] in last
    assert not (model_folder / "eval_shape_stories_test.json").exists()


def test_a_clip_checkpoint_is_no_trained_model(tmp_path, towers, processor, stories, capsys):
    CLIPModel(CLIPConfig(**towers)).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert main(["eval", str(tmp_path), "--annotations", str(stories)]) == 1
    assert "from_clip_pretrained" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "validation"], "validation"),
        (["--frames", "7"], "max_frames"),
        (["--max-words", "99"], "max_words"),
        (["--device", "toaster"], "toaster"),
    ],
)
def test_impossible_wishes_are_one_line(model_folder, stories, options, message, capsys):
    assert main(["eval", str(model_folder), "--annotations", str(stories), "--num-workers", "0", *options]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_model_is_told_before_a_benchmark_is_written(tmp_path, capsys):
    data = tmp_path / "data"
    assert main(["eval", str(tmp_path / "nothing"), "--annotations", str(data)]) == 1
    assert "nothing" in capsys.readouterr().err and not data.exists()


@pytest.mark.parametrize("options", [["--batch-size", "0"], ["--num-workers", "-1"], ["--frames", "two"]])
def test_wrong_numbers_are_wrong_usage(options):
    with pytest.raises(SystemExit, match="2"):
        main(["eval", "model", *options])


def test_several_models_are_one_table_and_one_folder(runs, stories, evaluate_here, tmp_path, capsys):
    assert evaluate_here(*runs) == 0
    out, err = capsys.readouterr()
    assert "model 1 of 2" in err and "model 2 of 2" in err
    folder = tmp_path / "eval_shape_stories_test"
    files = {file.name for file in folder.iterdir()}
    assert files == {"1_seed-3.json", "2_seed-4.json", "comparison.json", "comparison.md", "recall_curves.png"}
    assert all(file in out for file in files)

    results = [load_result(folder / name) for name in ("1_seed-3.json", "2_seed-4.json")]
    assert [result["seed"] for result in results] == [3, 4]
    comparison = json.loads((folder / "comparison.json").read_text())
    recall = [result["levels"]["combined"]["text_to_video"]["MnR"] for result in results]
    table = comparison["tables"][0]
    assert [row["MnR"] for row in table["rows"].values()] == recall
    assert table["mean"]["MnR"] == pytest.approx(sum(recall) / 2)
    for text in (out, (folder / "comparison.md").read_text()):
        assert "seed-3" in text and "seed-4" in text and f"{recall[0]:.1f}" in text


def test_finished_results_stand_for_their_models(runs, evaluate_here, tmp_path, capsys):
    assert evaluate_here(runs[0], "--out", "first.json") == 0
    assert evaluate_here(runs[1], "--out", "second.json") == 0
    assert evaluate_here("first.json", runs[1], "--out", "mixed") == 0
    capsys.readouterr()
    assert main(["eval", "first.json", "second.json", "--out", "finished"]) == 0
    mixed, finished = (json.loads((tmp_path / name / "comparison.json").read_text()) for name in ("mixed", "finished"))
    assert [list(t["rows"].values()) for t in mixed["tables"]] == [list(t["rows"].values()) for t in finished["tables"]]
    assert {file.name for file in (tmp_path / "finished").iterdir()} == {
        "comparison.json",
        "comparison.md",
        "recall_curves.png",
    }
    # One finished result is shown.
    capsys.readouterr()
    assert main(["eval", "first.json"]) == 0
    out = capsys.readouterr().out
    assert "text -> video: 15 queries" in out and "written" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "train"], "split: train in the command line, test in old.json"),
        (["--post-processing", "dsl"], "post-processing: dsl in the command line, none in old.json"),
        (["--benchmark", "msvd"], "benchmark: msvd in the command line, shape_stories in old.json"),
    ],
)
def test_what_cannot_be_compared_is_told_before_anything_is_measured(
    runs, options, message, evaluate_here, monkeypatch, capsys
):
    assert evaluate_here(runs[0], "--out", "old.json") == 0
    monkeypatch.setattr("hcmi.train.evaluation.evaluate", lambda *_, **__: pytest.fail("measured"))
    assert evaluate_here("old.json", runs[1], *options) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_other_counts_are_told_before_anything_is_measured(runs, tmp_path, evaluate_here, monkeypatch, capsys):
    assert evaluate_here(runs[0], "--out", "old.json") == 0
    other = write_shape_stories(tmp_path / "other", sizes={"test": 3}, workers=1, progress=False)
    monkeypatch.setattr("hcmi.train.evaluation.evaluate", lambda *_, **__: pytest.fail("measured"))
    assert main(["eval", "old.json", runs[1], "--annotations", str(other)]) == 1
    assert "number of videos: 5 in old.json, 3 in the data set" in capsys.readouterr().err.splitlines()[-1]


def test_post_processing_stands_beside_the_plain_numbers(runs, stories, evaluate_here, tmp_path, monkeypatch):
    banks = []

    def measure(*arguments, bank_texts, **options):
        banks.append(bank_texts)
        return evaluate(*arguments, bank_texts=bank_texts, **options)

    monkeypatch.setattr("hcmi.train.evaluation.evaluate", measure)
    assert evaluate_here(*runs, "--post-processing", "dsl", "qb_norm", "--out", "out") == 0
    tables = json.loads((tmp_path / "out" / "comparison.json").read_text())["tables"]
    found = [(table["direction"], table["post_processing"]) for table in tables]
    assert found[:3] == [("text_to_video", name) for name in ("none", "dsl", "qb_norm")]
    # The bank: every training caption once, the same for every model.
    training = load_shape_stories(stories, "train")["captions"]
    assert sorted(banks[0]) == sorted({caption for own in training for caption in own}) and banks[0] == banks[1]


def test_a_large_bank_is_sampled(stories, monkeypatch):
    monkeypatch.setattr(eval_command, "BANK_SIZE", 4)
    arguments = argparse.Namespace(benchmark="shape_stories", annotations=str(stories), videos=None, protocol=None)
    bank = eval_command._bank(arguments)
    assert len(set(bank)) == 4 and bank == eval_command._bank(arguments)


def test_the_choices_of_post_processing_are_those_of_the_evaluation():
    assert eval_command._POST_PROCESSING == POST_PROCESSING


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model", "model/"], "more than once"),
        (["model", "nothing"], "nothing"),
        (["model", "--out", "model"], "is the result file"),
        (["model", "model/config.json"], "no result file"),
        (["model", "other", "--out", "model/config.json"], "config.json"),
        (["model", "--videos", "."], "videos"),
        (["model", "--protocol", "mine"], "no protocol 'mine'"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments, message, model_folder, evaluate_here, monkeypatch, capsys):
    monkeypatch.setattr("hcmi.train.evaluation.evaluate", lambda *_, **__: pytest.fail("measured"))
    assert evaluate_here(*arguments) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_protocol_that_was_named_is_in_the_name_of_the_file(model_folder, evaluate_here):
    protocol = next(iter(protocols("shape_stories")))
    assert evaluate_here(model_folder, "--protocol", protocol) == 0
    assert (model_folder / f"eval_shape_stories_test_{protocol}.json").is_file()
