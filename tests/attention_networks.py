"""Small networks with attention, written in the ways that people write it."""

from collections.abc import Callable
from functools import partial

import torch
from networks import Case
from torch import Tensor, nn
from torch.nn import functional as F

TOKENS = partial(torch.randn, 2, 5, 12)
HEADS = {"attend.query": (6, 12), "attend.key": (6, 12), "attend.value": (6, 12), "attend.out": (12, 6)}
"""What is left of four heads of three channels when two go."""
HIDDEN = {"up": (10, 12), "down": (12, 10)}
"""What is left of twenty hidden units."""


def weigh(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return attention on tensors of shape `(..., heads, positions, channels)`."""
    return (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1) @ value


class Packed(nn.Module):
    """One layer for query, key and value, cut by `reshape` and `unbind`."""

    def __init__(self, dim: int = 12, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = heads, dim // heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        query, key, value = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(weigh(query, key, value).transpose(1, 2).reshape(b, n, -1))


class Fused(Packed):
    """The same with the fused operator, and a size for its result."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).view(b, n, 3, -1, self.head_dim).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.proj(attended.transpose(1, 2).flatten(2))


class OfWidth(Packed):
    """The same where the number of channels a head is worked out of the stream's width: heads have to stay."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        return self.proj(weigh(query, key, value).transpose(1, 2).reshape(b, n, c))


class Separate(nn.Module):
    """A layer each for query, key and value; heads are told by the number of channels of each."""

    def __init__(self, dim: int = 12, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

    def join(self, x: Tensor) -> Tensor:
        return self.out(x.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.join(weigh(self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))))


class ByNumber(Separate):
    """Heads are told by their number."""

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Einsum(Separate):
    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        weights = torch.einsum("bnhd,bmhd->bhnm", query, key).softmax(-1)
        return self.out(torch.einsum("bhnm, bmhd -> bnhd", weights, value).reshape(*x.shape[:2], -1))


class Rotary(Separate):
    """Positions turn the two halves of each head of query and key."""

    def __init__(self) -> None:
        super().__init__(16, 4)
        angles = torch.arange(5)[:, None] / 10 ** torch.arange(2)
        self.register_buffer("angles", torch.cat([angles, angles], 1), persistent=False)

    def turn(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=-1)
        return x * self.angles.cos() + torch.cat((-right, left), -1) * self.angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        query, key = self.turn(self.split(self.query(x))), self.turn(self.split(self.key(x)))
        return self.join(weigh(query, key, self.split(self.value(x))))


class Shared(nn.Module):
    """Two heads of keys and values serve two heads of queries each."""

    def __init__(self) -> None:
        super().__init__()
        self.head_dim = 3
        self.query, self.key, self.value, self.out = (nn.Linear(12, width) for width in (12, 6, 6, 12))

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        key, value = key.repeat_interleave(2, dim=1), value.repeat_interleave(2, dim=1)
        return self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Expanded(Shared):
    """The same as the code of language models has it."""

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        b, heads, n, channels = key.shape
        key, value = (each[:, :, None].expand(b, heads, 2, n, channels).flatten(1, 2) for each in (key, value))
        return self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Crossed(Separate):
    """Queries of one sequence, keys and values of another."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.Linear(4, 12)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        other = F.relu(self.memory(other))
        return self.join(weigh(self.split(self.query(x)), self.split(self.key(other)), self.split(self.value(other))))


class Biased(Separate):
    """A table of biases by relative position, one column a head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 4))
        self.register_buffer("place", torch.arange(5)[:, None] - torch.arange(5) + 4)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        bias = self.table[self.place.view(-1)].view(5, 5, -1).permute(2, 0, 1).unsqueeze(0)
        return self.join((query @ key.mT + bias).softmax(-1) @ value)


class Normalized(Separate):
    """Query and key go through a norm over the channels of each head."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_query, self.norm_key = nn.LayerNorm(3), nn.RMSNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        query, key = self.norm_query(self.split(self.query(x))), self.norm_key(self.split(self.key(x)))
        return self.join(weigh(query, key, self.split(self.value(x))))


class ManyHeads(ByNumber):
    """Six heads of two channels: with half of the channels, the code runs with the old number too."""

    def __init__(self) -> None:
        super().__init__(12, 6)


class Hidden(nn.Module):
    """The hidden units of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Gated(nn.Module):
    """Half of the hidden units gate the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 20), nn.Linear(10, 12)

    def forward(self, x: Tensor) -> Tensor:
        values, gates = self.up(x).chunk(2, dim=-1)
        return self.down(values * F.gelu(gates))


class Swish(nn.Module):
    """A layer each for values and gates."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(12, 20), nn.Linear(12, 20), nn.Linear(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Scaled(Hidden):
    """Layer scale on what a stream receives."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(12))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * super().forward(x)


class Around(nn.Module):
    """A residual block: a norm, and a part behind it."""

    def __init__(self, attend: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.attend, self.last = norm, attend, nn.Linear(12, 3)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return self.last(x + self.attend(self.norm(x), *others))


def around(build: Callable[[], nn.Module], norm: Callable[[int], nn.Module] = nn.LayerNorm) -> nn.Module:
    return Around(build(), norm(12))


class Vision(nn.Module):
    """A vision transformer: patches, a class token, learned positions, blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 12, 4, 4), nn.Parameter(torch.randn(1, 1, 12))
        self.positions = nn.Parameter(torch.randn(1, 5, 12))
        parts = ([nn.LayerNorm(12), Packed(), nn.LayerNorm(12), Hidden()] for _ in range(2))
        self.blocks = nn.ModuleList(map(nn.ModuleList, parts))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1) + self.positions
        for norm1, attend, norm2, hidden in self.blocks:
            x = x + attend(norm1(x))
            x = x + hidden(norm2(x))
        return self.head(self.norm(x)[:, 0])


class WithoutNorm(nn.Module):
    """A stream that no layer norm crosses, so that its channels go: class token and positions lose them too."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 12, 4, 4), nn.Parameter(torch.randn(1, 1, 12))
        self.positions, self.hidden, self.head = nn.Parameter(torch.randn(1, 5, 12)), Hidden(), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1) + self.positions
        return self.head((x + self.hidden(x))[:, 0])


class Windows(nn.Module):
    """Attention in shifted windows of two by two positions, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 12, 2, 2), nn.Linear(12, 3)
        self.norm, self.attend = nn.LayerNorm(12), Packed()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        y = torch.roll(self.norm(x), shifts=(-1, -1), dims=(1, 2))
        y = y.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        y = self.attend(y).view(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return self.last((x + torch.roll(y, shifts=(1, 1), dims=(1, 2))).mean(dim=(1, 2)))


class Language(nn.Module):
    """Tokens and positions of two tables, and a head that shares the first."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(30, 12), nn.Embedding(5, 12)
        self.hidden, self.head = Hidden(), nn.Linear(12, 30, bias=False)
        if tied:
            self.head.weight = self.tokens.weight
        self.register_buffer("order", torch.arange(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.places(self.order)
        return self.head(x + self.hidden(x))


class Sentence(nn.Module):
    """A convolution behind an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.conv, self.head = nn.Embedding(30, 12), nn.Conv1d(12, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(self.tokens(x).transpose(1, 2))).amax(-1))


class Together(nn.Module):
    """Modules of torch whose code fixes heads."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.last = nn.Linear(12, 12), nn.Linear(12, 3)
        self.attend = nn.MultiheadAttention(12, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.before(x))
        return self.last(self.attend(x, x, x, need_weights=False)[0])


def words() -> Tensor:
    return torch.randint(30, (2, 5))


ATTENTION = {
    "packed": Case(partial(around, Packed), {"attend.qkv": (18, 12), "attend.proj": (12, 6), "last": (3, 12)}, TOKENS),
    "fused": Case(partial(around, Fused), {"attend.qkv": (18, 12), "attend.proj": (12, 6), "last": (3, 12)}, TOKENS),
    "of-width": Case(partial(around, OfWidth), {"attend.qkv": (36, 12), "attend.proj": (12, 12)}, TOKENS, relies=True),
    "separate": Case(partial(around, Separate), HEADS, TOKENS),
    "by-number": Case(partial(around, ByNumber), HEADS, TOKENS),
    "einsum": Case(partial(around, Einsum), HEADS, TOKENS),
    "many-heads": Case(partial(around, ManyHeads), HEADS, TOKENS),
    "rotary": Case(Rotary, {"query": (8, 16), "key": (8, 16), "out": (16, 8)}, partial(torch.randn, 2, 5, 16)),
    "shared-heads": Case(
        partial(around, Shared), {"attend.query": (6, 12), "attend.key": (3, 12), "attend.out": (12, 6)}, TOKENS
    ),
    "expanded-heads": Case(
        partial(around, Expanded), {"attend.query": (6, 12), "attend.value": (3, 12), "attend.out": (12, 6)}, TOKENS
    ),
    "crossed": Case(
        partial(around, Crossed),
        {**HEADS, "attend.memory": (6, 4), "attend.key": (6, 6), "attend.value": (6, 6)},
        lambda: (TOKENS(), torch.randn(2, 7, 4)),
    ),
    "biased": Case(partial(around, Biased), {**HEADS, "attend.table": (9, 2)}, TOKENS),
    "normalized-heads": Case(partial(around, Normalized), {**HEADS, "attend.norm_query": (3,)}, TOKENS),
    "hidden": Case(partial(around, Hidden), {f"attend.{k}": v for k, v in HIDDEN.items()}, TOKENS),
    "rms-norm": Case(partial(around, Hidden, nn.RMSNorm), {"norm": (12,), "attend.up": (10, 12)}, TOKENS),
    "gated-hidden": Case(partial(around, Gated), {"attend.up": (10, 12), "attend.down": (12, 5)}, TOKENS),
    "swish-hidden": Case(
        partial(around, Swish), {"attend.up": (10, 12), "attend.gate": (10, 12), "attend.down": (12, 10)}, TOKENS
    ),
    "layer-scale": Case(partial(around, Scaled), {"attend.up": (10, 12), "attend.gamma": (12,)}, TOKENS),
    "vision": Case(
        Vision,
        {"patches": (12, 3), "blocks.0.1.qkv": (18, 12), "blocks.1.1.proj": (12, 6), "blocks.1.3.up": (10, 12)},
    ),
    "stream-without-norm": Case(
        WithoutNorm,
        {"patches": (6, 3), "token": (1, 1, 6), "positions": (1, 5, 6), "hidden.up": (10, 6), "head": (3, 6)},
    ),
    "windows": Case(Windows, {"stem": (12, 3), "attend.qkv": (18, 12), "attend.proj": (12, 6)}),
    "language": Case(
        partial(Language, False),
        {"tokens": (30, 6), "places": (5, 6), "hidden.up": (10, 6), "hidden.down": (6, 10), "head": (30, 6)},
        words,
    ),
    "tied-language": Case(
        partial(Language, True), {"tokens": (30, 6), "places": (5, 6), "hidden.up": (10, 6), "head": (30, 6)}, words
    ),
    "sentence": Case(Sentence, {"tokens": (30, 12), "conv": (4, 12), "head": (3, 4)}, words),
    "multihead": Case(Together, {"before": (12, 12), "attend.in_proj_weight": (36, 12)}, TOKENS),
    "encoder-layer": Case(
        partial(nn.TransformerEncoderLayer, 12, 4, 20, batch_first=True),
        {"linear1": (10, 12), "linear2": (12, 10), "self_attn.in_proj_weight": (36, 12)},
        TOKENS,
    ),
}
