"""Makes tokenizer.json: CLIP's tokenizer with a vocabulary of our own.

Same normaliser, same split, same byte-level pairs with </w>, same template as the tokenizer.json of the published CLIP models; only
the merges are learned here, and the end token is again the highest id.
"""

import argparse
import json
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import prepare
from texts import Texts

START, END = "<|startoftext|>", "<|endoftext|>"
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
MERGES = 2650


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, required=True)
    options = arguments.parse_args()
    concepts, _ = prepare.load(options.work)
    tokenizer = make(Texts(concepts).corpus(random.Random(1)))
    tokenizer.save(str(options.work / "tokenizer.json"))
    print(tokenizer.get_vocab_size(), "tokens")


def make(corpus: list[str]) -> Tokenizer:
    learner = assembled(models.BPE(end_of_word_suffix="</w>"))
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=3, end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )
    learner.train_from_iterator(corpus, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]][:MERGES]
    # Every byte has a token in the middle and at the end of a word, or rare bytes would be lost.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = assembled(models.BPE(vocabulary, merges, end_of_word_suffix="</w>", continuing_subword_prefix="", unk_token=END))
    tokenizer.add_special_tokens([AddedToken(START, normalized=True, special=True), AddedToken(END, normalized=False, special=True)])
    start, end = vocabulary[START], vocabulary[END]
    assert end == len(vocabulary) - 1
    tokenizer.post_processor = processors.RobertaProcessing((END, end), (START, start), trim_offsets=False, add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def assembled(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    return tokenizer


if __name__ == "__main__":
    main()
