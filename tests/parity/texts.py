"""Writes the token ids that pg_clip has to reproduce, by OpenAI's SimpleTokenizer (openai/CLIP, clip/simple_tokenizer.py).

Writes  tests/data/clip/tokenizer.json.gz  CLIP's tokenizer as transformers writes it
        tests/data/clip/texts.jsonl.gz     a header, then [kind, text, OpenAI's ids] a line; where pg_clip differs on purpose
                                           or by a known lack also [why], [its ids]

Checked on the way: open_clip's tokenizer gives the same ids wherever no special token is written out.
"""

import argparse
import collections
import gzip
import html
import importlib.metadata
import json
import tempfile
import unicodedata
from functools import lru_cache
from pathlib import Path

import ftfy
import regex
import transformers
from open_clip.tokenizer import SimpleTokenizer as OpenClip
from open_clip.tokenizer import bytes_to_unicode, default_bpe

import strings

REPOSITORY = Path(__file__).resolve().parents[2]
CONTEXT = 77
SPECIAL = ["<|startoftext|>", "<|endoftext|>"]
PLAIN_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|" + PLAIN_PATTERN


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=REPOSITORY / "tests/data/clip")
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    reference, open_clip, file = Reference(), OpenClip(), transformers_tokenizer()
    write(options.out / "tokenizer.json.gz", file.to_str(pretty=False))
    rows, kinds, without_cleaning, differing = [], collections.Counter(), collections.Counter(), collections.Counter()
    for kind, text in strings.every():
        ids = reference.ids(text)
        if not any(special in reference.clean(text, True) for special in (*SPECIAL, "<start_of_text>", "<end_of_text>")):
            assert ids == trimmed(open_clip(text)[0].tolist()), f"open_clip differs: {text!r}"
        kinds[kind] += 1
        without_cleaning[kind] += file.encode(text).ids != ids
        row = [kind, text, ids]
        why, ours = difference(reference, text, ids)
        if why:
            differing[why] += 1
            row += [why, ours]
        rows.append(row)
    header = {
        "what": "token ids of OpenAI's SimpleTokenizer, at most 77; written by tests/parity/texts.py",
        "versions": {
            "unicode": unicodedata.unidata_version,
            **{name: importlib.metadata.version(name) for name in ("ftfy", "regex", "open_clip_torch", "transformers", "tokenizers")},
        },
        "strings": len(rows),
        "differing": dict(sorted(differing.items())),
    }
    lines = [json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in (header, *rows)]
    write(options.out / "texts.jsonl.gz", "\n".join(lines) + "\n")
    for kind, count in kinds.items():
        ours = sum(len(row) > 3 for row in rows if row[0] == kind)
        print(f"| {kind} | {count} | {count - without_cleaning[kind]} | {count - ours} |")
    print(f"| all | {len(rows)} | {len(rows) - without_cleaning.total()} | {len(rows) - differing.total()} |")
    print(header["differing"])


class Reference:
    """OpenAI's SimpleTokenizer, with a switch for each thing that pg_clip does not do."""

    def __init__(self):
        merges = gzip.open(default_bpe()).read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
        self.merges = [tuple(merge.split()) for merge in merges]
        self.bytes = bytes_to_unicode()
        letters = list(self.bytes.values())
        tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in self.merges), *SPECIAL]
        self.vocabulary = {token: index for index, token in enumerate(tokens)}
        self.ranks = {merge: rank for rank, merge in enumerate(self.merges)}
        self.patterns = {
            special_tokens: regex.compile(PATTERN if special_tokens else PLAIN_PATTERN, regex.IGNORECASE) for special_tokens in (True, False)
        }

    def ids(self, text: str, *, repairs_encoding=True, special_tokens=True) -> list[int]:
        words = self.patterns[special_tokens].findall(self.clean(text, repairs_encoding))
        start, end = (self.vocabulary[token] for token in SPECIAL)
        ids = [start, *(index for word in words for index in self.word(word, special_tokens)), end]
        return ids if len(ids) <= CONTEXT else [*ids[: CONTEXT - 1], end]

    def clean(self, text: str, repairs_encoding: bool) -> str:
        text = ftfy.fix_text(text, fix_encoding=repairs_encoding)
        text = html.unescape(html.unescape(text)).strip()
        return regex.sub(r"\s+", " ", text).strip().lower()

    @lru_cache(maxsize=1 << 20)
    def word(self, word: str, special_tokens: bool) -> list[int]:
        if special_tokens and word in SPECIAL:
            return [self.vocabulary[word]]
        *parts, last = (self.bytes[byte] for byte in word.encode())
        parts = [*parts, last + "</w>"]
        while len(parts) > 1:
            pair = min(zip(parts, parts[1:]), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if pair not in self.ranks:
                break
            merged, index = [], 0
            while index < len(parts):
                same = tuple(parts[index : index + 2]) == pair
                merged.append("".join(pair) if same else parts[index])
                index += 2 if same else 1
            parts = merged
        return [self.vocabulary[part] for part in parts]


def difference(reference: Reference, text: str, ids: list[int]) -> tuple[str | None, list[int]]:
    """The ids that pg_clip gives instead of OpenAI's, and why, if they differ."""
    lacks = {"mojibake": "repairs_encoding", "special token": "special_tokens"}
    ours = reference.ids(text, **dict.fromkeys(lacks.values(), False))
    if ours == ids:
        return None, ids
    return " and ".join(why for why, switch in lacks.items() if reference.ids(text, **{switch: False}) != ids), ours


def transformers_tokenizer():
    reference = Reference()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(reference.vocabulary))
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(merge) for merge in reference.merges) + "\n")
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder).backend_tokenizer
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == [49406, 49407] and tokenizer.get_vocab_size() == 49408
    tokenizer.no_padding()
    tokenizer.enable_truncation(CONTEXT)
    return tokenizer


def trimmed(ids: list[int]) -> list[int]:
    while ids[-1] == 0:
        ids.pop()
    return ids


def write(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main()
