"""Texts to measure with: seeded, of mixed lengths, no two alike."""

import random

WORDS = ["the", "of", "gravity", "river", "city", "answer", "language", "table", "green", "42", "北京", "naïve"]


def mixed_texts(num: int, *, seed: int, min_words: int = 4, max_words: int = 200) -> list[str]:
    """Lengths spread evenly on a logarithmic scale, as questions and passages are."""
    chance = random.Random(seed)
    sizes = [int(min_words * (max_words / min_words) ** chance.random()) for _ in range(num)]
    return [f"{seed}-{index} " + " ".join(chance.choices(WORDS, k=size)) for index, size in enumerate(sizes)]
