"""Trains the text tower a little longer, against pictures instead of prototypes.

The prototypes are where the pictures of a concept ought to be; a search meets new pictures where they are. So the picture tower
is frozen, embeds a few pictures of every concept that it never saw, and each text learns to rank a gallery of them. That costs little, and it is
what broad words need most: "music" has to find pictures of twenty things before any picture of another.

Reads   WORK/checkpoint.pt
Writes  WORK/polished.pt
"""

import argparse
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional

import compose
import prepare
from texts import Texts, among_strangers
from train import Judge, Training, embed_fresh, targets

CONCEPTS_A_BATCH, BROAD_A_BATCH = 64, 48
RATE, SCALE = 1e-3, 24.0
# Beyond the pictures that the pool holds.
FIRST_PICTURE = 10_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--steps", type=int, default=500)
    arguments.add_argument("--pictures", type=int, default=4, help="a concept")
    options = arguments.parse_args()
    torch.manual_seed(8)
    concepts, glyphs = prepare.load(options.work)
    tokenizer = Tokenizer.from_file(str(options.work / "tokenizer.json"))
    towers = Training(tokenizer.get_vocab_size(), len(concepts))
    towers.load_state_dict(torch.load(options.work / "checkpoint.pt")["average"])
    towers.eval()
    judge = Judge(options.work, concepts, tokenizer)
    print("before: " + judge.figures(towers), flush=True)
    images = embed_fresh(towers, glyphs, compose.TRAINING, range(FIRST_PICTURE, FIRST_PICTURE + options.pictures))
    texts = Texts(concepts)
    optimizer = torch.optim.AdamW(towers.text.parameters(), lr=RATE, weight_decay=0.01)
    for step in range(options.steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * (1 - step / options.steps)
        lot = random.Random(10**6 + step)
        said = [texts.of(index, lot) for index in lot.sample(range(len(concepts)), CONCEPTS_A_BATCH)]
        said += [texts.any_broad(lot) for _ in range(BROAD_A_BATCH)]
        said = [(among_strangers(text, lot) if lot.random() < 0.4 else text, key) for text, key in said]
        input_ids, shares = targets(texts, tokenizer, said)
        gallery = images[torch.arange(len(concepts)), torch.randint(options.pictures, (len(concepts),))]
        loss = functional.cross_entropy(SCALE * towers.text(input_ids) @ gallery.T, shares)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            print(f"step {step + 1} loss {loss.item():.3f} " + judge.figures(towers), flush=True)
    torch.save({"average": towers.state_dict()}, options.work / "polished.pt")


if __name__ == "__main__":
    main()
