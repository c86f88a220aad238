"""Names the concepts that the trained model confuses most, so that the figures and the photos can leave them out.

Some glyphs differ in nothing that survives a small picture: a postbox open or closed, a globe from here or from there. Confusion is
counted on validation pictures, in both directions; the test pictures have no say.

Reads   WORK/polished.pt
Writes  pruned.json beside this file, committed
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

import compose
import prepare
from train import Training, embed_fresh, tokens

PICTURES = 4


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--keep", type=int, default=880)
    options = arguments.parse_args()
    concepts, glyphs = prepare.load(options.work)
    confusion = measure(options.work, concepts, glyphs)
    promised = [index for index, concept in enumerate(concepts) if concept["name"] in prepare.PROMISED]
    pruned = []
    while len(concepts) - len(pruned) > options.keep:
        blame = confusion.sum(0) + confusion.sum(1)
        blame[promised] = -1
        worst = int(blame.argmax())
        pruned.append(concepts[worst]["name"])
        confusion[worst] = confusion[:, worst] = 0
    prepare.PRUNED_FILE.write_text(json.dumps(sorted(pruned), indent=1, ensure_ascii=False) + "\n")


@torch.no_grad()
def measure(work: Path, concepts: list[dict], glyphs: np.ndarray) -> torch.Tensor:
    """How often each concept's pictures and name find each other concept instead."""
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    towers = Training(tokenizer.get_vocab_size(), len(concepts))
    towers.load_state_dict(torch.load(work / "polished.pt")["average"])
    towers.eval()
    images = embed_fresh(towers, glyphs, compose.VALIDATION, range(PICTURES))
    names = torch.cat([towers.text(tokens(tokenizer, [concept["name"]])) for concept in concepts])
    count = len(concepts)
    confusion = torch.zeros(count, count)
    owners = torch.arange(count).repeat_interleave(PICTURES)
    alike = images.flatten(0, 1) @ images.flatten(0, 1).T
    alike.fill_diagonal_(-1)
    for owner, nearest in zip(owners, alike.topk(5).indices):
        confusion[owner].index_add_(0, owners[nearest], torch.full((5,), 0.2))
    for picture in range(PICTURES):
        found = (names @ images[:, picture].T).argmax(1)
        confusion.index_put_((torch.arange(count), found), torch.tensor(1.0), accumulate=True)
    return confusion.fill_diagonal_(0)


if __name__ == "__main__":
    main()
