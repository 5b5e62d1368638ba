import json
import random
import subprocess
import sys

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from hcmi.train.data.shape_stories import _annotate_all, _sample_all
from hcmi.train.data.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def captions() -> list[str]:
    rows = _annotate_all(0, _sample_all(0, {"train": 400}))["train"]
    return [caption for row in rows for caption in row["captions"]]


@pytest.fixture(scope="module")
def tokenizer(captions):
    return train_tokenizer(captions, max_length=64)


def test_all_caption_words_are_whole_tokens(tokenizer, captions):
    for caption in captions:
        words = caption.replace(",", " ,").split()
        assert tokenizer.tokenize(caption) == [word + "</w>" for word in words]
    assert len(tokenizer) < 400
    assert max(len(ids) for ids in tokenizer(captions)["input_ids"]) <= 64 == tokenizer.model_max_length


def test_round_trip(tokenizer):
    ids = tokenizer("A  Small red ring slides LEFT, then two blue squares grow")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert (
        tokenizer.decode(ids, skip_special_tokens=True) == "a small red ring slides left , then two blue squares grow"
    )


def test_unseen_words_are_spelled_and_unseen_characters_unknown(tokenizer):
    assert "".join(tokenizer.tokenize("elephant")) == "elephant</w>"
    assert tokenizer.unk_token_id not in tokenizer("an elephant dances on 7 ice-creams, doesn't it?!")["input_ids"]
    assert tokenizer.unk_token_id in tokenizer("une fête")["input_ids"]
    assert tokenizer("")["input_ids"] == [tokenizer.bos_token_id, tokenizer.eos_token_id]


def test_special_tokens_are_distinct_and_keep_clear_of_clips_legacy_end(tokenizer):
    special = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert len(set(special)) == 4
    assert tokenizer.eos_token_id != 2  # CLIPTextModel pools at the greatest id when the end token is 2


def test_clip_text_model_pools_at_the_end_token_whatever_the_padding(tokenizer):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, projection_dim=16, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = CLIPTextModel(config).eval()
    texts = ["a red ring grows", "first a tiny violet cross slides to the left, then two big white boxes spin"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    assert batch["attention_mask"].sum(1).tolist() == [6, 18]
    with torch.no_grad():
        output = model(**batch)
        alone = model(**tokenizer(texts[:1], return_tensors="pt"))
    assert torch.equal(output.pooler_output[0], output.last_hidden_state[0, 5])
    torch.testing.assert_close(output.pooler_output[:1], alone.pooler_output)


def test_vocabulary_does_not_depend_on_the_order_of_captions(tokenizer, captions):
    shuffled = random.Random(0).sample(captions, len(captions))
    assert train_tokenizer(shuffled, max_length=64).get_vocab() == tokenizer.get_vocab()


def test_vocabulary_size_is_a_limit(captions):
    small = train_tokenizer(captions, vocab_size=150)
    assert len(small) == 150
    assert small.tokenize("a") == ["a</w>"]
    assert "".join(small.tokenize("triangles")) == "triangles</w>"
    with pytest.raises(ValueError, match="vocab_size must be at least"):
        train_tokenizer(captions, vocab_size=20)


def test_first_merge_is_the_most_frequent_pair():
    vocab = train_tokenizer(["abab abab cd", "cd, xy"], vocab_size=1000).get_vocab()
    learned = sorted(
        (token for token in vocab if len(token.removesuffix("</w>")) > 1 and "|" not in token), key=vocab.get
    )
    # "c d" occurs twice, as "ab" + "ab</w>" and its parts do: the ties are broken alphabetically.
    assert learned[0] == "ab"
    assert set(learned) == {"ab", "ab</w>", "abab</w>", "cd</w>", "xy</w>"}


def test_saved_tokenizer_loads_in_a_fresh_process(tokenizer, captions, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    code = (
        "import json, sys; from transformers import AutoTokenizer; t = AutoTokenizer.from_pretrained(sys.argv[1]);"
        "print(json.dumps([t(json.loads(sys.argv[2]), padding=True)['input_ids'], t.model_max_length]))"
    )
    texts = [*captions[:5], "an unseen elephant"]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), json.dumps(texts)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [tokenizer(texts, padding=True)["input_ids"], 64]
