"""Tokenizers of SentencePiece, as XLM-RoBERTa's and SigLIP 2's are made, trained on a few captions.

SentencePiece itself gives the token ids that are expected; transformers writes the `tokenizer.json`.
"""

import io
import tempfile
from typing import Callable

import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, processors

CAPTIONS = (
    "a photo of a cat", "a photo of the red dog", "two cats on a slice of pizza", "in the snow", "the apple on the pizza of the dog",
    "ein Foto von einem Hund im Schnee", "zwei Katzen auf einem Stück Pizza", "une photo d'un chat rouge dans la neige",
    "два кота и красная собака на снегу", "雪の中の犬と赤い猫の写真", "قطة حمراء على الثلج", "a photo of a red cat in the snow",
    "a photo of a dog", "the dog", "a dog", "dog", "cat", "a photo", "a slice of pizza", "the apple",
)
TEXTS = (
    "ein Foto von einem roten Hund", "une photo d'un chat", "красная собака", "赤い猫の写真", "قطة على الثلج", "Ｐｉｚｚａ　in the ﬁeld", "a\u00a0cat \t\n in  the snow",
)
# Parts of the NFKC that XLM-RoBERTa's has: letters of full width, the ideographic and the no-break space, two ligatures.
RULES = {chr(wide): chr(wide - 0xFEE0) for wide in range(0xFF01, 0xFF5F)} | {"\u3000": " ", "\u00a0": " ", "\t": " ", "\n": " ", "ﬁ": "fi", "ﬂ": "fl"}

Encode = Callable[[str], list[int]]


def xlm_roberta() -> tuple[Tokenizer, Encode]:
    """Unigrams after a normalisation by table; `<s>` and `</s>` around a text, `<pad>` (1) after it."""
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        point = lambda text: " ".join(f"{ord(character):X}" for character in text)
        rules.writelines(f"{point(source)}\t{point(target)}\n" for source, target in RULES.items())
        rules.flush()
        model = train(model_type="unigram", vocab_size=160, hard_vocab_limit=False, normalization_rule_tsv=rules.name)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [(processor.id_to_piece(number), processor.get_score(number)) for number in range(3, len(processor))]
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces, ("<mask>", 0.0)]
    table = sentencepiece_model_pb2.ModelProto.FromString(model).normalizer_spec.precompiled_charsmap
    written = transformers.XLMRobertaTokenizer(vocab=vocabulary, _spm_precompiled_charsmap=table)
    # Its first three tokens are in another order than SentencePiece's, and there is one more.
    place = lambda number: number + 1 if number else 3
    return written.backend_tokenizer, lambda text: [0, *map(place, processor.encode(text)), 2]


def siglip2() -> tuple[Tokenizer, Encode]:
    """Byte pairs of whole texts, as Gemma's; `<eos>` (1) ends a text, `<pad>` (0) fills it up, and it is lower case."""
    model = train(
        model_type="bpe", vocab_size=480, byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False,
        normalization_rule_name="identity", pad_id=0, eos_id=1, bos_id=2, unk_id=3, user_defined_symbols=["<mask>"],
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = {processor.id_to_piece(number): number for number in range(len(processor))}
    merges = [
        (piece[:at], piece[at:])
        for piece in sorted(vocabulary, key=vocabulary.get) if processor.get_score(vocabulary[piece]) < 0 or len(piece) == 2
        for at in range(1, len(piece)) if piece[:at] in vocabulary and piece[at:] in vocabulary and not piece.startswith("<")
    ]
    written = transformers.GemmaTokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
    written.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return written, lambda text: [*processor.encode(text.lower()), 1]


def train(**options: object) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS * 20), model_writer=model, character_coverage=1.0, num_threads=1, minloglevel=2, **options,
    )
    return model.getvalue()
