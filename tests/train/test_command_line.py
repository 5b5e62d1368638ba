import argparse
import tempfile
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hcmi.train.arguments import FREEZABLE, MIXED_PRECISIONS, TrainingArguments
from hcmi.train.command_line import build_parser, from_namespace


def parse(*words):
    return from_namespace(build_parser(argparse.ArgumentParser()).parse_args(words))


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(file):
    config = file("model: clip\nepochs: 3\nbatch_size: 16\n")
    arguments = parse("--config", config, "--epochs", "9")
    assert (arguments.epochs, arguments.batch_size) == (9, 16)
    assert arguments.learning_rate == TrainingArguments(model="clip").learning_rate


def test_the_order_of_the_command_line_does_not_matter(file):
    config = file("model: clip\nepochs: 3\n")
    assert parse("--epochs", "9", "--config", config) == parse("--config", config, "--epochs", "9")


def test_without_a_file_the_command_line_is_enough():
    assert parse("--model", "clip") == TrainingArguments(model="clip")


def test_scientific_notation_that_yaml_reads_as_text(file):
    assert yaml.safe_load("1e-4") == "1e-4"
    arguments = parse(
        "--config", file("model: clip\nlearning_rate: 1e-4\ntower_learning_rate: 5E-6\nweight_decay: 0\n")
    )
    assert (arguments.learning_rate, arguments.tower_learning_rate, arguments.weight_decay) == (1e-4, 5e-6, 0.0)
    assert type(arguments.weight_decay) is float


def test_a_bare_no_that_yaml_reads_as_false(file):
    assert yaml.safe_load("no") is False
    assert parse("--config", file("model: clip\nmixed_precision: no\n")).mixed_precision == "no"


def test_every_kind_of_value_on_the_command_line(file):
    config = file("model: clip\nmax_words: 12\nannotations: here\ncpu: true\nfreeze: [towers]\n")
    arguments = parse("--config", config, "--max_words", "none", "--annotations", "none", "--cpu", "False")
    assert (arguments.max_words, arguments.annotations, arguments.cpu, arguments.freeze) == (
        None,
        None,
        False,
        ["towers"],
    )
    words = ["--freeze", "towers,hierarchy", "--config_overrides", '{"label_denoising": false, "num_clips": 2}']
    arguments = parse("--config", config, "--gradient_checkpointing", "true", "--warmup_share", "2e-1", *words)
    assert arguments.freeze == ["towers", "hierarchy"]
    assert arguments.config_overrides == {"label_denoising": False, "num_clips": 2}
    assert (arguments.gradient_checkpointing, arguments.warmup_share) == (True, 0.2)
    assert parse("--config", config, "--freeze", "").freeze == []


def test_a_model_from_the_command_line_takes_the_place_of_the_files_configuration(file):
    config = file("model_config: tiny.json\n")
    arguments = parse("--config", config, "--model", "clip", "--model_config", "none")
    assert (arguments.model, arguments.model_config) == ("clip", None)


def test_unknown_fields_are_named_beside_the_known(file, capsys):
    with pytest.raises(ValueError, match=r"run\.yaml: unknown fields epoch, speed; known are .*epochs"):
        parse("--config", file("model: clip\nspeed: 3\nepoch: 2\n"))
    with pytest.raises(SystemExit):
        parse("--model", "clip", "--speed", "3")
    assert "--speed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", "many"),
        ("epochs", "2.5"),
        ("epochs", "none"),
        ("learning_rate", "fast"),
        ("cpu", "maybe"),
        ("config_overrides", "label_denoising=false"),
        ("config_overrides", "[1]"),
        ("max_words", "1.5"),
    ],
)
def test_wrong_types_on_the_command_line_are_refused_with_the_field(field, value):
    with pytest.raises(ValueError, match=f"{field} must be of type"):
        parse("--model", "clip", f"--{field}", value)


@pytest.mark.parametrize(
    "line",
    ["epochs: 2.0", "epochs: true", "cpu: 1", "output: 3", "freeze: {a: 1}", "config_overrides: [1]", "epochs: ~"],
)
def test_wrong_types_in_the_file_are_refused_with_the_field(file, line):
    with pytest.raises(ValueError, match=f"{line.split(':')[0]} (must be of type|needs a value)"):
        parse("--config", file(f"model: clip\n{line}\n"))


@pytest.mark.parametrize(
    ("content", "message"), [("- a\n- b\n", "field: value"), ("", "field: value"), ("a: [", "not a YAML file")]
)
def test_a_file_without_fields_is_named(file, content, message):
    with pytest.raises(ValueError, match=rf"run\.yaml.*{message}"):
        parse("--config", file(content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml: cannot be read: No such file"):
        parse("--config", str(tmp_path / "none.yaml"))


def test_the_models_configuration_lies_beside_the_file(file, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert parse("--config", file("model_config: tiny.json\n")).model_config == str(tmp_path / "tiny.json")
    assert parse("--config", file("model_config: /far/tiny.json\n")).model_config == "/far/tiny.json"
    assert parse("--config", file("model: clip\nmodel_config: none\n")).model_config is None


def test_on_the_command_line_it_lies_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse("--model_config", "tiny.json").model_config == str(tmp_path / "tiny.json")


def test_a_saved_file_means_the_same_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = parse("--model_config", "configs/tiny.json", "--learning_rate", "1e-4", "--mixed_precision", "no")
    (tmp_path / "runs").mkdir()
    arguments.save(tmp_path / "runs" / "arguments.yaml")
    monkeypatch.chdir("/")
    assert parse("--config", str(tmp_path / "runs" / "arguments.yaml")) == arguments


@given(
    st.builds(
        TrainingArguments,
        model=st.sampled_from(["clip", "openai/clip-vit-base-patch16", "1e3", "yes", "ä: b"]),
        annotations=st.none() | st.just("hf://owner/name"),
        seed=st.integers(0, 2**31),
        cpu=st.booleans(),
        learning_rate=st.floats(0, 1),
        max_gradient_norm=st.floats(min_value=0, exclude_min=True),
        max_words=st.none() | st.integers(3, 77),
        mixed_precision=st.sampled_from(MIXED_PRECISIONS),
        freeze=st.lists(st.sampled_from(FREEZABLE), unique=True),
        config_overrides=st.dictionaries(
            st.sampled_from(["num_clips", "loss_weights"]),
            st.none() | st.booleans() | st.floats(0, 9) | st.dictionaries(st.text(max_size=3), st.floats(0, 9)),
        ),
    )
)
def test_what_is_saved_reads_back_equal(arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arguments.yaml"
        arguments.save(path)
        assert parse("--config", str(path)) == arguments


def test_the_help_lists_every_field_with_its_default():
    text = " ".join(build_parser(argparse.ArgumentParser()).format_help().split())
    defaults = TrainingArguments(model="clip")
    for entry in fields(TrainingArguments):
        default = None if entry.name == "model" else getattr(defaults, entry.name)
        place = text.index(f" --{entry.name} ")
        remark = "; may differ when a run is resumed" if entry.name not in defaults.settings() else ""
        assert f"(default: {default}{remark})" in text[place : text.index("(default:", place) + 200], entry.name
        assert " ".join(entry.metadata["help"].split()) in text, entry.name


def test_the_configuration_in_the_repository_is_complete():
    config = Path(__file__).parents[2] / "train" / "configs" / "shape_stories.yaml"
    arguments = parse("--config", str(config))
    assert Path(str(arguments.model_config)).is_file()
    assert (arguments.benchmark, arguments.learning_rate) == ("shape_stories", 1e-3)
