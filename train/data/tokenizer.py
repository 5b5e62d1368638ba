"""A small CLIP tokenizer trained on captions, for models that are trained from scratch."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from transformers import CLIPTokenizer

# CLIPTextModel treats an end-of-text id of 2 as a sign of an old checkpoint and pools elsewhere: keep 2 off it.
_SPECIAL_TOKENS = {"pad_token": "<|pad|>", "unk_token": "<|unknown|>", "bos_token": "<|startoftext|>"}
_END_TOKEN = "<|endoftext|>"
_END_OF_WORD = "</w>"
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.!?;:'-"


def train_tokenizer(captions: Iterable[str], vocab_size: int = 512, max_length: int = 77) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary in CLIP's format, with frequent words as whole tokens.

    The same captions give the same vocabulary, in any order. Words that the captions lack are spelled from parts;
    characters other than English letters, digits and the usual punctuation become the unknown token.

    Args:
        captions: training captions.
        vocab_size: greatest number of tokens, special tokens and single characters included; fewer where all words
            are whole before.
        max_length: longest sequence in tokens, begin and end included (`model_max_length`).

    Returns:
        A tokenizer whose sequences are begin, words, end, with a padding token of its own.

    Raises:
        ValueError: `vocab_size` leaves no room for the single characters.
    """
    vocabulary = [*_SPECIAL_TOKENS.values(), _END_TOKEN, *_CHARACTERS, *(c + _END_OF_WORD for c in _CHARACTERS)]
    if vocab_size < len(vocabulary):
        raise ValueError(f"vocab_size must be at least {len(vocabulary)} for the single characters, got {vocab_size}")
    merges = _learn_merges(_count_words(captions), vocab_size - len(vocabulary))
    vocabulary += [left + right for left, right in merges]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=merges,  # type: ignore[arg-type]  # annotated as strings, used as pairs
        eos_token=_END_TOKEN,
        model_max_length=max_length,
        **_SPECIAL_TOKENS,
    )


def _count_words(captions: Iterable[str]) -> Counter[str]:
    """Count the words as CLIP's tokenizer will split them."""
    splitter = CLIPTokenizer().backend_tokenizer
    words: Counter[str] = Counter()
    for caption in captions:
        normalized = splitter.normalizer.normalize_str(caption)
        words.update(word for word, _ in splitter.pre_tokenizer.pre_tokenize_str(normalized))
    return words


def _learn_merges(words: Counter[str], num_merges: int) -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent pair first; ties in alphabetical order, so that the result is repeatable."""
    known = set(_CHARACTERS)
    spelled = {word: [*word[:-1], word[-1] + _END_OF_WORD] for word in sorted(words) if word and known.issuperset(word)}
    merges: list[tuple[str, str]] = []
    while len(merges) < num_merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in spelled.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for parts in spelled.values():
            place = 0
            while place < len(parts) - 1:
                if (parts[place], parts[place + 1]) == best:
                    parts[place : place + 2] = ["".join(best)]
                place += 1
    return merges
