"""The two towers: a small residual network for pictures, a small causal transformer for texts.

Both keep CLIP's contract: 224 x 224 pixels normalised with CLIP's mean and deviation, or token ids whose highest is the end of
the text; out come 512 numbers of length one. The text tower is causal and pools where the end token is, so that padding after it
changes nothing.
"""

import torch
from torch import nn
from torch.nn import functional

DIMENSIONS = 512
CONTEXT = 32
WIDTHS = (16, 32, 64, 160, 256)


class VisionTower(nn.Module):
    """Averages 3 x 3 pixels first: the glyphs are large enough, and the rest costs a ninth."""

    def __init__(self, folded: bool = False):
        super().__init__()
        self.stem = nn.Sequential(*convolution(3, WIDTHS[0], 2, folded), nn.ReLU())
        self.stages = nn.Sequential(*(Stage(narrow, wide, folded) for narrow, wide in zip(WIDTHS, WIDTHS[1:])))
        self.projection = nn.Linear(2 * WIDTHS[-1], DIMENSIONS)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.embed(functional.avg_pool2d(pixel_values, 3, 3, padding=1, count_include_pad=False))

    def embed(self, small: torch.Tensor) -> torch.Tensor:
        features = self.stages(self.stem(small))
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        return normalised(self.projection(pooled))


class Stage(nn.Module):
    def __init__(self, narrow: int, wide: int, folded: bool):
        super().__init__()
        self.down = nn.Sequential(*convolution(narrow, wide, 2, folded), nn.ReLU())
        self.residual = nn.Sequential(*convolution(wide, wide, 1, folded), nn.ReLU(), *convolution(wide, wide, 1, folded))
        if not folded:
            nn.init.zeros_(self.residual[-1].weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.down(features)
        return functional.relu(features + self.residual(features))


def convolution(narrow: int, wide: int, stride: int, folded: bool) -> tuple[nn.Module, nn.Module]:
    """A convolution and its batch normalisation, or the one convolution that does both."""
    normalisation = nn.Identity() if folded else nn.BatchNorm2d(wide)
    return nn.Conv2d(narrow, wide, 3, stride, 1, bias=folded), normalisation


def folded(tower: VisionTower) -> VisionTower:
    """The same function without batch normalisations."""
    weights = dict(tower.named_parameters())
    for name, normalisation in tower.named_modules():
        if isinstance(normalisation, nn.BatchNorm2d):
            path, index = name.rsplit(".", 1)
            gain = normalisation.weight / (normalisation.running_var + normalisation.eps).sqrt()
            del weights[f"{name}.weight"], weights[f"{name}.bias"]
            weights[f"{path}.{int(index) - 1}.weight"] = weights[f"{path}.{int(index) - 1}.weight"] * gain[:, None, None, None]
            weights[f"{path}.{int(index) - 1}.bias"] = normalisation.bias - normalisation.running_mean * gain
    result = VisionTower(folded=True)
    result.load_state_dict(weights)
    return result.eval()


class TextTower(nn.Module):
    def __init__(self, vocabulary: int, width: int = 128, layers: int = 3, heads: int = 4):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(CONTEXT, width) * 0.02)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, DIMENSIONS, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.05)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        states = self.tokens(input_ids) + self.positions[: input_ids.shape[1]]
        for layer in self.layers:
            states = layer(states)
        ends = input_ids.argmax(1)[:, None, None].expand(-1, 1, states.shape[-1])
        pooled = states.gather(1, ends).squeeze(1)
        return normalised(self.projection(self.norm(pooled)))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_feedforward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feedforward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.register_buffer("mask", torch.full((CONTEXT, CONTEXT), -1e4).triu(1), persistent=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        batch, length, width = states.shape
        split = self.query_key_value(self.norm_attention(states)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        weights = query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5 + self.mask[:length, :length]
        mixed = (weights.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, width)
        states = states + self.output(mixed)
        return states + self.feedforward(self.norm_feedforward(states))


def normalised(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)
