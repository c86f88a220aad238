"""The texts about a concept: its name, its keywords, broader words, captions around them, and its emoji.

A text stands for every concept that it describes: "pizza" for one, "cheese" for two, "food" for a hundred. What `split.json` holds
out is never said, neither alone nor inside a caption.
"""

import json
import random

import prepare

# {a}: the name with its article, {n}: the bare name, {k}: one of its words.
CAPTIONS = (
    "a photo of {a}", "a photo of {a}", "a picture of {a}", "{a}", "a photo of the {n}", "a small {n}", "a large {n}", "a close-up of {a}", "photo of {n}",
    "an image of {a}", "{n} on a {c} background", "{a} on a {c} background", "the {n}", "my {n}", "show me {a}", "pictures of {n}",
    "a {k} {n}", "{n}, {k}", "{k}: {n}", "{n} {k}", "a {k} of {n}", "{k} of {n}", "{n} and {k}", "{n} with {k}", "one {n}", "{n}s",
    "some {n}", "a drawing of {a}", "this is {a}", "a nice {n}", "there is {a}", "{a} in the {place}", "{a} on the {place}",
)
WORD_CAPTIONS = ("{k}", "{k}", "{k}", "{k}", "{k}", "{k}", "a photo of {k}", "a picture of {k}", "{k} photo", "something with {k}", "{k}s", "a {k}", "some {k}", "pictures of {k}")
# Kept for the evaluation.
HELD_OUT_CAPTIONS = ("i am looking for {a}", "a blurry snapshot showing {a}", "can you find {a} here?", "holiday memories: {n}", "{a} seen from far away")

# Words that say nothing about a thing; none of them is in a held-out caption.
FILLERS = (
    "the", "my", "our", "is", "it", "please", "very", "with", "near", "under", "behind", "this", "that", "where", "we", "want", "to", "see",
    "old", "new", "nice", "really", "just", "some", "one", "two", "on", "at", "by", "me", "give", "search", "taken", "yesterday", "shot", "today",
    "like", "lovely", "big", "little", "when", "was", "in", "had", "and", "then", "which", "lot",
)

COLOURS = ("red", "green", "blue", "yellow", "white", "black", "grey", "pink", "purple", "orange", "brown")
PLACES = ("kitchen", "garden", "street", "table", "grass", "house", "beach", "snow", "water", "wall")
ALREADY_COUNTED = ("the ", "a ", "an ", "person ", "people ", "man ", "woman ")


class Texts:
    """Samples texts together with the concepts that each of them describes."""

    def __init__(self, concepts: list[dict], held_out: dict | None = None):
        held_out = held_out or json.loads(prepare.SPLIT_FILE.read_text())
        silent_words, silent_pairs = set(held_out["keywords"]), {tuple(pair) for pair in held_out["pairs"]}
        self.concepts = concepts
        self.words: list[list[str]] = []
        self.holders: dict[str, list[int]] = {}
        for index, concept in enumerate(concepts):
            said = [
                word
                for word in concept["keywords"]
                if word not in silent_words and (concept["name"], word) not in silent_pairs
            ]
            self.words.append(said)
            for word in sorted({*said, *concept["broad"]}):
                self.holders.setdefault(word, []).append(index)
        self.names = {concept["name"]: index for index, concept in enumerate(concepts)}
        # A broad word is drawn in proportion to how much it stands for.
        self.broad = sorted(word for word, holders in self.holders.items() if len(holders) >= 4)
        self.broad_weights = [len(self.holders[word]) ** 0.6 for word in self.broad]

    def of(self, index: int, lot: random.Random) -> tuple[str, str]:
        """A text that describes the concept, and the name or word in it that decides what else it describes."""
        concept, words = self.concepts[index], self.words[index] + self.concepts[index]["broad"]
        dice = lot.random()
        if dice < 0.3:
            return concept["name"], concept["name"]
        if dice < 0.33:
            return concept["emoji"], concept["name"]
        if dice < 0.65 or not words:
            return caption(lot.choice(CAPTIONS), concept, words, lot), concept["name"]
        # Annotations tell concepts apart, broad words have their own turn.
        word = lot.choice(self.words[index] or words) if lot.random() < 0.8 else lot.choice(words)
        return lot.choice(WORD_CAPTIONS).format(k=word), word

    def any_broad(self, lot: random.Random) -> tuple[str, str]:
        word = lot.choices(self.broad, self.broad_weights)[0]
        return lot.choice(WORD_CAPTIONS).format(k=word), word

    def described(self, key: str) -> dict[int, float]:
        """The concepts that the name or word stands for, with their shares: the concept of that name before the holders of the word."""
        shares = {index: 1.0 for index in self.holders.get(key, ())}
        if key in self.names:
            shares[self.names[key]] = 5.0 + 0.5 * len(shares)
        total = sum(shares.values())
        return {index: share / total for index, share in shares.items()}

    def corpus(self, lot: random.Random) -> list[str]:
        """The texts that the tokenizer is made from."""
        return [self.of(index, lot)[0] for index in range(len(self.concepts)) for _ in range(20)] + [
            text for concept in self.concepts for text in (concept["name"], concept["emoji"])
        ] + list(self.holders)


def caption(template: str, concept: dict, words: list[str], lot: random.Random) -> str:
    name = concept["name"]
    if "{k}" in template and not words:
        template = "a photo of {a}"
    return template.format(
        n=name, a=with_article(name), k=lot.choice(words) if words else "", c=lot.choice(COLOURS), place=lot.choice(PLACES)
    )


def among_strangers(text: str, lot: random.Random) -> str:
    """The text amid fillers and words that do not exist, so that the tower learns to pass over what it does not know."""
    stranger = lambda: lot.choice(FILLERS) if lot.random() < 0.6 else "".join(lot.choice("bcdfghklmnprstvw") + lot.choice("aeiou") for _ in range(lot.randint(1, 3)))
    before, after = ([stranger() for _ in range(lot.randint(0, most))] for most in (4, 2))
    return " ".join([*before, text, *after])


def with_article(name: str) -> str:
    if name.startswith(ALREADY_COUNTED) or name.endswith("s"):
        return name
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
