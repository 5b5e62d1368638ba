"""A query's tokens as words that can be read."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class QueryWord:
    """
    One token of a query.

    Args:
        text: what it says, without spaces; empty for a part of a letter.
        continues: whether it goes on with the word before it.
        special: whether the tokenizer has added it, or put it in the place of what it does not know.
    """

    text: str
    continues: bool = False
    special: bool = False

    @property
    def label(self) -> str:
        """As pictures and tables show it: `dog`, `·gy` for the second piece of `doggy`, `[start]`."""
        if self.special:
            return f"[{self.text}]"
        return "·" * self.continues + (self.text or "…")


def query_words(processor: Any, query: str) -> list[QueryWord]:
    """
    The words of a query, one for each token that the model sees of it: what is cut off is not among them.

    Args:
        processor: with any tokenizer, of words or of pieces of them.
    """
    tokens = processor(text=[query], return_tensors="pt")
    return _read(processor.tokenizer, tokens["input_ids"][0][tokens["attention_mask"][0].bool()].tolist())


def _read(tokenizer: Any, ids: list[int]) -> list[QueryWord]:
    """A token's text is by how much the text grows with it: tokenizers mark spaces and pieces in ways of their own."""
    names = _special_names(tokenizer)
    words: list[QueryWord] = []
    before = ""
    for count, token in enumerate(ids, 1):
        if token in names:
            words.append(QueryWord(names[token], special=True))
            continue
        text = tokenizer.decode(ids[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        text = text.rstrip("\N{REPLACEMENT CHARACTER}")  # part of a letter's bytes
        grown = text[len(before) :]
        first = not before or words[-1].special
        words.append(QueryWord(grown.strip(), continues=not first and not grown.startswith(" ")))
        before = text
    return words


def _special_names(tokenizer: Any) -> dict[int, str]:
    roles = {"unk": "unknown", "pad": "padding", "sep": "end", "cls": "start", "eos": "end", "bos": "start"}
    names = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    # Where a token has several roles, the last one names it.
    return names | {
        getattr(tokenizer, f"{role}_token_id"): name
        for role, name in roles.items()
        if getattr(tokenizer, f"{role}_token_id", None) is not None
    }
