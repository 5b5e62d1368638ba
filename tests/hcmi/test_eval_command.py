import json

import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from hcmi.cli import main
from hcmi.modeling_hcmi import LEVELS, HCMIConfig, HCMIModel
from hcmi.processing import HCMIProcessor
from hcmi.train.data.benchmarks import BENCHMARKS, load_benchmark
from hcmi.train.data.shape_stories import load_shape_stories, write_shape_stories
from hcmi.train.data.tokenizer import train_tokenizer
from hcmi.train.evaluation import evaluate
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
def model_folder(tmp_path, towers, processor):
    torch.manual_seed(0)
    folder = tmp_path / "model"
    HCMIModel(HCMIConfig(**towers, max_frames=6)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_eval_measures_prints_and_writes(model_folder, stories, capsys):
    arguments = ["eval", str(model_folder), "--benchmark", "shape_stories", "--split", "test", "--data", str(stories)]
    assert main([*arguments, "--batch-size", "2", "--num-workers", "1"]) == 0
    result_file = model_folder / "eval_shape_stories_test.json"
    out = capsys.readouterr().out
    assert "text -> video: 15 queries, 5 to rank" in out and "moments" in out and str(result_file) in out

    result = load_result(result_file)
    assert (result["benchmark"], result["split"], result["seed"]) == ("shape_stories", "test", None)
    assert result["protocol"] == BENCHMARKS["shape_stories"].protocol
    assert result["counts"]["videos"] == 5 and result["counts"]["texts"] == 15
    assert result["frames"] == {"per_video": 4, "videos_with_fewer": 0}
    assert set(result["levels"]) == {*LEVELS, "combined"}
    dataset = load_benchmark("shape_stories", "test", stories)
    assert result["moments"]["all"]["events"] == sum(len(events) for events in dataset["events"])

    model, processor = HCMIModel.from_pretrained(model_folder), HCMIProcessor.from_pretrained(model_folder)
    again = evaluate(model, processor, dataset, batch_size=5, show_progress=False)
    assert again["levels"] == result["levels"]


def test_eval_takes_frames_words_type_and_file(model_folder, stories, tmp_path):
    out = tmp_path / "results" / "short.json"
    options = ["--frames", "2", "--max-words", "8", "--dtype", "bfloat16", "--device", "cpu", "--out", str(out)]
    assert main(["eval", str(model_folder), "--data", str(stories), "--num-workers", "0", *options]) == 0
    result = json.loads(out.read_text())
    assert result["frames"]["per_video"] == 2 and result["dtype"] == "bfloat16"
    assert result["tokens"]["max_words"] == 8 and result["tokens"]["texts_cut"] > 0


def test_a_broken_video_is_refused_by_name(model_folder, tmp_path, capsys):
    folder = write_shape_stories(tmp_path / "stories", sizes={"test": 2}, workers=1, progress=False)
    broken = load_shape_stories(folder, "test")[1]
    with open(broken["video"], "wb") as file:
        file.write(b"no video")
    assert main(["eval", str(model_folder), "--data", str(folder), "--num-workers", "0"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("hcmi eval: error:") and broken["video_id"] in last
    assert not (model_folder / "eval_shape_stories_test.json").exists()


def test_a_clip_checkpoint_is_no_trained_model(tmp_path, towers, processor, stories, capsys):
    CLIPModel(CLIPConfig(**towers)).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert main(["eval", str(tmp_path), "--data", str(stories)]) == 1
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
    assert main(["eval", str(model_folder), "--data", str(stories), "--num-workers", "0", *options]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_model_is_told_before_a_benchmark_is_written(tmp_path, capsys):
    data = tmp_path / "data"
    assert main(["eval", str(tmp_path / "nothing"), "--data", str(data)]) == 1
    assert "nothing" in capsys.readouterr().err and not data.exists()


@pytest.mark.parametrize("options", [["--batch-size", "0"], ["--num-workers", "-1"], ["--frames", "two"]])
def test_wrong_numbers_are_wrong_usage(options):
    with pytest.raises(SystemExit, match="2"):
        main(["eval", "model", *options])


def test_a_benchmark_or_split_that_is_not_there_is_named(stories):
    with pytest.raises(ValueError, match="shape_stories"):
        load_benchmark("shapes", "test", stories)
    with pytest.raises(ValueError, match="validation"):
        load_benchmark("shape_stories", "dev", stories)
