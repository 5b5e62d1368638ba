"""Similarities as double loops over plain lists, written from their formulas."""

import math


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def token_wise_by_loops(
    words: list, frames: list, word_mask: list, frame_mask: list, word_weights: list, frame_weights: list
) -> list[list[float]]:
    """`1/2 [ sum_w a_w max_f <w, f> + sum_f b_f max_w <w, f> ]` over real tokens, a row for each text."""
    table = []
    for text, real_words, a in zip(words, word_mask, word_weights, strict=True):
        row = []
        for video, real_frames, b in zip(frames, frame_mask, frame_weights, strict=True):
            w_real = [w for w in range(len(text)) if real_words[w]]
            f_real = [f for f in range(len(video)) if real_frames[f]]
            text_side = sum(a[w] * max(cosine(text[w], video[f]) for f in f_real) for w in w_real)
            video_side = sum(b[f] * max(cosine(text[w], video[f]) for w in w_real) for f in f_real)
            row.append((text_side + video_side) / 2)
        table.append(row)
    return table
