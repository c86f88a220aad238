"""Trains the two towers together.

Four losses pull on the same 512 numbers:

    a picture to the prototype of its concept          (which learns fast: a thousand classes, not a batch of strangers)
    a text to the prototypes of all that it describes  (so "food" learns a hundred concepts at once, not the one it was drawn for)
    pictures to texts within the batch                 (CLIP's own, with every matching pair a positive)
    the two pictures of a concept to each other        (so that a picture finds its like)

The prototypes are scaffolding: they are not exported. The schedule counts steps, never time: it starts with large glyphs and small
pictures, which are cheap, and ends at the full size with the rate falling to nothing.

Reads   WORK/pool.npy, WORK/tokenizer.json, WORK/concepts.json
Writes  WORK/checkpoint.pt, every few hundred steps; `--resume` goes on from it, also towards another number of steps
"""

import argparse
import copy
import random
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

import compose
import model
import pool
import prepare
import preprocess
from texts import Texts

CONCEPTS_A_BATCH, BROAD_A_BATCH = 64, 16
RATE, WEIGHT_DECAY = 2e-3, 0.05
WARM_UP = 100
DECAY_FROM = 0.5
SIDES = ((0.3, 48), (0.65, 60), (1.0, pool.SIDE))
EASY_UNTIL = 0.15


class Training(nn.Module):
    """The towers with the scaffolding around them."""

    def __init__(self, vocabulary: int, concepts: int):
        super().__init__()
        self.vision, self.text = model.VisionTower(), model.TextTower(vocabulary)
        self.prototypes = nn.Parameter(torch.randn(concepts, model.DIMENSIONS) * 0.05)
        self.scales = nn.Parameter(torch.full((3,), 14.0).log())

    def forward(self, pictures: torch.Tensor, labels: torch.Tensor, input_ids: torch.Tensor, shares: torch.Tensor) -> dict[str, torch.Tensor]:
        images, texts = self.vision.embed(pictures), self.text(input_ids)
        prototypes = model.normalised(self.prototypes)
        picture_scale, text_scale, pair_scale = self.scales.exp().clamp(max=60)
        logits = picture_scale * images @ prototypes.T
        losses = {
            "picture": functional.cross_entropy(logits, labels, label_smoothing=0.02),
            "text": functional.cross_entropy(text_scale * texts @ prototypes.T, shares),
            "pair": self.contrast(pair_scale * images @ texts.T, shares[:, labels].T),
            "like": self.likeness(images, labels),
        }
        with torch.no_grad():
            losses["right"] = (logits.argmax(1) == labels).float().mean()
        return losses

    @staticmethod
    def contrast(logits: torch.Tensor, matches: torch.Tensor) -> torch.Tensor:
        total = 0
        for direction, match in ((logits, matches), (logits.T, matches.T)):
            weight = match.sum(1, keepdim=True)
            found = weight[:, 0] > 0
            total = total + functional.cross_entropy(direction[found], match[found] / weight[found])
        return total / 2

    @staticmethod
    def likeness(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = 16 * images @ images.T
        logits = logits.masked_fill(torch.eye(len(images), dtype=torch.bool), -1e4)
        same = (labels[:, None] == labels[None]).float().fill_diagonal_(0)
        return functional.cross_entropy(logits, same / same.sum(1, keepdim=True))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--steps", type=int, default=2900)
    arguments.add_argument("--stop-after-minutes", type=float, default=240, help="a safety stop, not part of the schedule")
    arguments.add_argument("--resume", action="store_true")
    options = arguments.parse_args()
    torch.manual_seed(7)
    concepts, _ = prepare.load(options.work)
    tokenizer = Tokenizer.from_file(str(options.work / "tokenizer.json"))
    training = Training(tokenizer.get_vocab_size(), len(concepts)).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(training)
    average = copy.deepcopy(training).eval()
    step = 0
    if options.resume:
        state = torch.load(options.work / "checkpoint.pt")
        training.load_state_dict(state["training"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    batches = Batches(options.work, concepts, tokenizer)
    judge = Judge(options.work, concepts, tokenizer)
    started, seen_from = time.time(), step
    while step < options.steps and time.time() - started < options.stop_after_minutes * 60:
        progress = step / options.steps
        for group in optimizer.param_groups:
            group["lr"] = RATE * group["share"] * rate(step, progress)
        training.train()
        losses = training(*batches.draw(step, progress))
        loss = losses["picture"] + losses["text"] + losses["pair"] + 0.5 * losses["like"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(training.parameters(), 5.0)
        optimizer.step()
        step += 1
        follow(average, training, min(0.998, step / (step + 10)))
        if step % 100 == 0:
            speed = (step - seen_from) / (time.time() - started)
            print(f"step {step} {speed:.2f}/s " + " ".join(f"{name} {value.item():.3f}" for name, value in losses.items()), flush=True)
        if step % 250 == 0 or step == options.steps:
            save(options.work / "checkpoint.pt", training, average, optimizer, step)
        if step % 500 == 0 or step == options.steps:
            print(f"step {step} validation " + judge.figures(average), flush=True)


def rate(step: int, progress: float) -> float:
    return min(1.0, (step + 1) / WARM_UP) * min(1.0, (1 - progress) / (1 - DECAY_FROM) + 0.005)


def make_optimizer(training: Training) -> torch.optim.Optimizer:
    matrices = [parameter for name, parameter in training.named_parameters() if parameter.ndim > 1 and name != "prototypes"]
    vectors = [parameter for parameter in training.parameters() if parameter.ndim == 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "share": 1.0, "weight_decay": WEIGHT_DECAY},
            {"params": vectors, "share": 1.0, "weight_decay": 0.0},
            {"params": [training.prototypes], "share": 4.0, "weight_decay": 0.0},
        ],
        lr=RATE, fused=True,
    )


@torch.no_grad()
def follow(average: nn.Module, training: nn.Module, momentum: float) -> None:
    """A running average of the weights is better than the weights while the rate is high."""
    theirs = training.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(theirs[name], 1 - momentum)
        else:
            value.copy_(theirs[name])


def save(path: Path, training: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    state = {"training": training.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


class Batches:
    """Sixty-four concepts, two pictures and a text of each, and some broad words. A batch depends on its step alone."""

    def __init__(self, work: Path, concepts: list[dict], tokenizer: Tokenizer):
        self.pool = np.load(work / "pool.npy", mmap_mode="r")
        self.texts, self.tokenizer, self.concepts = Texts(concepts), tokenizer, len(concepts)

    def draw(self, step: int, progress: float) -> tuple[torch.Tensor, ...]:
        lot, numbers = random.Random(step), np.random.default_rng(step)
        chosen = numbers.choice(self.concepts, CONCEPTS_A_BATCH, replace=False)
        reach = self.pool.shape[1] * min(1.0, 0.35 + 0.65 * progress / EASY_UNTIL)
        slots = np.stack([numbers.choice(int(reach), 2, replace=False) for _ in chosen])
        labels = np.repeat(chosen, 2)
        pictures = torch.from_numpy(self.pool[labels, slots.ravel()])
        side = next(side for until, side in SIDES if progress < until)
        said = [self.texts.of(index, lot) for index in chosen] + [self.texts.any_broad(lot) for _ in range(BROAD_A_BATCH)]
        input_ids, shares = targets(self.texts, self.tokenizer, said)
        return varied(pictures, side, torch.Generator().manual_seed(step)), torch.from_numpy(labels), input_ids, shares


def targets(texts: Texts, tokenizer: Tokenizer, said: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, and for each text how much of it goes to each concept."""
    shares = torch.zeros(len(said), len(texts.concepts))
    for row, (_, key) in enumerate(said):
        for index, share in texts.described(key).items():
            shares[row, index] = share
    return tokens(tokenizer, [text for text, _ in said]), shares


def tokens(tokenizer: Tokenizer, said: list[str]) -> torch.Tensor:
    found = [encoding.ids[:31] for encoding in tokenizer.encode_batch(said)]
    end, length = tokenizer.get_vocab_size() - 1, max(map(len, found)) + 1
    return torch.tensor([ids + [end if ids[-1] != end else 0] + [0] * (length - 1 - len(ids)) for ids in found])


def varied(pictures: torch.Tensor, side: int, lot: torch.Generator) -> torch.Tensor:
    """Shifts, turns, zooms and tints what the pool holds, so that its hundred pictures a concept do not run out."""
    count = len(pictures)
    zoom, angle = torch.rand(count, generator=lot) * 0.2 + 0.85, torch.randn(count, generator=lot) * 0.08
    shift = (torch.rand(count, 2, generator=lot) - 0.5) * 0.16
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    affine = torch.stack([torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1)], 1)
    grid = functional.affine_grid(affine, [count, 3, side, side], align_corners=False)
    turned = functional.grid_sample(levels(pictures), grid, "bilinear", "reflection", align_corners=False)
    tint = 1 + torch.randn(count, 3, 1, 1, generator=lot) * 0.08
    return (turned * tint + torch.randn(count, 3, 1, 1, generator=lot) * 0.08).contiguous(memory_format=torch.channels_last)


def levels(pictures: torch.Tensor) -> torch.Tensor:
    """CLIP's normalisation; averaging before it or after it is the same."""
    return ((pictures.float() / 255 - torch.tensor(preprocess.MEAN)) / torch.tensor(preprocess.DEVIATION)).permute(0, 3, 1, 2)


@torch.no_grad()
def embed_fresh(towers: Training, glyphs: np.ndarray, purpose: int, numbers: range) -> torch.Tensor:
    """[concepts, pictures, 512] of pictures composed for this."""
    return torch.stack([
        towers.vision.embed(levels(torch.from_numpy(np.stack([pool.picture(glyph, purpose, index, number)[0] for number in numbers]))))
        for index, glyph in enumerate(glyphs)
    ])


class Judge:
    """Two validation pictures a concept: one is what names search, the other is what searches it."""

    def __init__(self, work: Path, concepts: list[dict], tokenizer: Tokenizer):
        _, glyphs = prepare.load(work)
        self.names = tokens(tokenizer, [concept["name"] for concept in concepts])
        self.pictures = [
            torch.from_numpy(np.stack([pool.picture(glyph, compose.VALIDATION, index, picture)[0] for index, glyph in enumerate(glyphs)]))
            for picture in (0, 1)
        ]

    @torch.no_grad()
    def figures(self, towers: Training) -> str:
        gallery, queries = (
            torch.cat([towers.vision.embed(levels(part).contiguous(memory_format=torch.channels_last)) for part in pictures.split(200)])
            for pictures in self.pictures
        )
        texts = torch.cat([towers.text(part) for part in self.names.split(200)])
        by_name, by_picture = (found @ gallery.T for found in (texts, queries))
        ranks = (by_name > by_name.diagonal()[:, None]).sum(1)
        nearest = (by_picture.argmax(1) == torch.arange(len(gallery))).float().mean()
        return f"R@1 {(ranks < 1).float().mean():.3f} R@5 {(ranks < 5).float().mean():.3f} nearest picture {nearest:.3f}"


if __name__ == "__main__":
    main()
