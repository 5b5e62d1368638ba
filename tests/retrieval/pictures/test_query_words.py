import os

import pytest
from saved_hcmi import save_tiny_hcmi
from tiny_hcmi import tiny_tokenizer
from transformers import AutoTokenizer

from hcmi.processing import HCMIProcessor
from hcmi.retrieval.pictures.query_words import query_words


def processor_of(tokenizer):
    """What a processor does with texts."""

    def call(text, return_tensors):
        return tokenizer(text, return_tensors=return_tensors, truncation=True, max_length=24)

    call.tokenizer = tokenizer
    return call


def labels(tokenizer, query: str) -> list[str]:
    return [word.label for word in query_words(processor_of(tokenizer), query)]


def test_pieces_say_that_they_go_on():
    words = query_words(processor_of(tiny_tokenizer()), "a dog in")
    assert [word.label for word in words] == ["[start]", "a", "d", "·o", "·g", "i", "·n", "[end]"]
    assert [word.text for word in words] == ["start", "a", "d", "o", "g", "i", "n", "end"]
    assert [word.special for word in words] == [True, *[False] * 6, True]
    assert [word.continues for word in words] == [False, False, False, True, True, False, True, False]


def test_what_the_tokenizer_does_not_know_and_what_is_cut_off():
    assert labels(tiny_tokenizer(), "a 1b") == ["[start]", "a", "[unknown]", "b", "[end]"]
    assert labels(tiny_tokenizer(), "x " * 40) == ["[start]", *["x"] * 22, "[end]"]


@pytest.mark.filterwarnings("ignore:.*texts were cut")
def test_one_word_for_each_token_that_the_model_sees(tmp_path):
    processor = HCMIProcessor.from_pretrained(save_tiny_hcmi(tmp_path))
    for query in ("a red ring", "a purple ring", "red " * 30):
        words = query_words(processor, query)
        mask = processor(text=[query, "a red ring slides left then a blue square grows"], return_tensors="pt")
        assert len(words) == int(mask["attention_mask"][0].sum())
    assert [word.label for word in query_words(processor, "a purple ring")] == [
        "[start]", "a", "[unknown]", "ring", "[end]",
    ]  # fmt: skip


@pytest.mark.skipif("HCMI_TOKENIZER" not in os.environ, reason="HCMI_TOKENIZER names no folder with CLIP's tokenizer")
def test_clips_own_tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(os.environ["HCMI_TOKENIZER"])
    assert labels(tokenizer, "A dog's skateboard, 2 pools") == [
        "[start]", "a", "dog", "'s", "skateboard", ",", "2", "pools", "[end]",
    ]  # fmt: skip
    assert labels(tokenizer, "ein Mädchen") == ["[start]", "ein", "m", "·ä", "·d", "·chen", "[end]"]
    assert labels(tokenizer, "日本") == ["[start]", "日", "·…", "·本", "[end]"], "a letter in two pieces of its bytes"
