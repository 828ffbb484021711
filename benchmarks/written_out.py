"""Architectures written out: what tutorials and papers have in a page of PyTorch, initialised as they do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from zoo import Architecture, Built


class GraphNetwork(nn.Module):
    """Message passing on an edge list, as in GIN (Xu et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32)) for _ in range(3)
        )
        self.epsilon = nn.Parameter(torch.zeros(3))
        self.head = nn.Linear(32, 4)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        state = self.embed(nodes)
        for number, layer in enumerate(self.layers):
            messages = torch.zeros_like(state).index_add(0, edges[1], state[edges[0]])
            state = layer((1 + self.epsilon[number]) * state + messages).relu()
        return self.head(state.mean(0, keepdim=True))


class Generator(nn.Module):
    """DCGAN's (Radford et al. 2016), initialised as its tutorial does."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for ins, outs in ((64, 128), (128, 64), (64, 32)):
            layers += [nn.ConvTranspose2d(ins, outs, 4, 2, 1, bias=False), nn.BatchNorm2d(outs), nn.ReLU(True)]
        self.net = nn.Sequential(*layers, nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=False), nn.Tanh())
        for module in self.net:
            if isinstance(module, nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, noise: Tensor) -> Tensor:
        return self.net(noise)


class Discriminator(nn.Module):
    """DCGAN's, with spectral norm (Miyato et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        sizes = ((3, 32), (32, 64), (64, 128))
        self.body = nn.Sequential(
            *(nn.Sequential(norm(nn.Conv2d(i, o, 4, 2, 1)), nn.LeakyReLU(0.2, inplace=True)) for i, o in sizes)
        )
        self.head = norm(nn.Linear(128 * 16, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image).flatten(1))


class LanguageModel(nn.Module):
    """PyTorch's word-language-model example: tied, uniform(-0.1, 0.1)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.encoder = nn.Embedding(120, 64)
        self.rnn = getattr(nn, kind)(64, 64, 2, dropout=0.2)
        self.decoder = nn.Linear(64, 120)
        self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(self.rnn(self.encoder(tokens))[0])


class Translator(nn.Module):
    """GRU encoder and decoder with additive attention (Bahdanau et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(120, 32), nn.Embedding(120, 32)
        self.encoder = nn.GRU(32, 32, batch_first=True, bidirectional=True)
        self.bridge, self.cell = nn.Linear(64, 32), nn.GRUCell(96, 32)
        self.query, self.keys, self.energy = nn.Linear(32, 32), nn.Linear(64, 32), nn.Linear(32, 1, bias=False)
        self.out = nn.Linear(32, 120)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, last = self.encoder(self.source(source))
        state, logits = self.bridge(torch.cat([last[0], last[1]], 1)).tanh(), []
        for word in self.target(target).unbind(1):
            scores = self.energy((self.query(state)[:, None] + self.keys(memory)).tanh())
            context = (scores.softmax(1) * memory).sum(1)
            state = self.cell(torch.cat([word, context], 1), state)
            logits.append(self.out(state))
        return torch.stack(logits, 1)


class RadianceField(nn.Module):
    """NeRF (Mildenhall et al. 2020) with its positional encoding and its skip."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bands", 2.0 ** torch.arange(6))
        self.first = nn.ModuleList(nn.Linear(39 if i == 0 else 64, 64) for i in range(4))
        self.second = nn.ModuleList(nn.Linear(64 + 39 if i == 0 else 64, 64) for i in range(4))
        self.density, self.colour = nn.Linear(64, 1), nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, points: Tensor) -> Tensor:
        angles = (points[..., None] * self.bands).flatten(1)
        encoded = torch.cat([points, angles.sin(), angles.cos()], 1)
        state = encoded
        for layer in self.first:
            state = layer(state).relu()
        state = torch.cat([state, encoded], 1)
        for layer in self.second:
            state = layer(state).relu()
        return torch.cat([self.colour(state).sigmoid(), self.density(state).relu()], 1)


class WaveNet(nn.Module):
    """Gated dilated convolutions with skips (van den Oord et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 32, 1)
        self.filters = nn.ModuleList(nn.Conv1d(32, 64, 2, dilation=2**i) for i in range(5))
        self.outs = nn.ModuleList(nn.Conv1d(32, 64, 1) for _ in range(5))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(32, 32, 1), nn.ReLU(), nn.Conv1d(32, 16, 1))

    def forward(self, wave: Tensor) -> Tensor:
        state, skips = self.first(wave), torch.zeros(())
        for number, (filters, out) in enumerate(zip(self.filters, self.outs, strict=True)):
            left, right = filters(functional.pad(state, (2**number, 0))).chunk(2, 1)
            residual, skip = out(left.tanh() * right.sigmoid()).chunk(2, 1)
            state, skips = state + residual, skips + skip
        return self.head(skips)


class Coupling(nn.Module):
    """A normalising flow of affine couplings whose last layers are zero (Glow, Kingma & Dhariwal 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)) for _ in range(4)
        )
        for net in self.nets:
            nn.init.zeros_(net[-1].weight)
            nn.init.zeros_(net[-1].bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        volume = torch.zeros(x.shape[0])
        for net in self.nets:
            left, right = x.chunk(2, 1)
            scale, shift = net(left).chunk(2, 1)
            x = torch.cat([right * (scale.sigmoid() + 0.5) + shift, left], 1)
            volume = volume + (scale.sigmoid() + 0.5).log().sum(1)
        return x, volume


class VectorQuantiser(nn.Module):
    """VQ-VAE (van den Oord et al. 2017): codes uniform in (-1/K, 1/K), gradients straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 16, 4, 2, 1))
        self.codes = nn.Embedding(64, 16)
        nn.init.uniform_(self.codes.weight, -1 / 64, 1 / 64)
        self.decode = nn.Sequential(nn.ConvTranspose2d(16, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, 2, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        latent = self.encode(image)
        flat = latent.permute(0, 2, 3, 1).flatten(0, 2)
        nearest = torch.cdist(flat, self.codes.weight).argmin(1)
        chosen = self.codes(nearest).view(latent.shape[0], *latent.shape[2:], -1).permute(0, 3, 1, 2)
        commitment = functional.mse_loss(chosen, latent.detach()) + 0.25 * functional.mse_loss(chosen.detach(), latent)
        return self.decode(latent + (chosen - latent).detach()), commitment


class Variational(nn.Module):
    """PyTorch's VAE example."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(64, 48), nn.Linear(48, 8), nn.Linear(48, 8)
        self.fc3, self.fc4 = nn.Linear(8, 48), nn.Linear(48, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.fc1(x).relu()
        mean, log_variance = self.fc21(hidden), self.fc22(hidden)
        latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.fc4(self.fc3(latent).relu()).sigmoid(), mean, log_variance


class ActorCritic(nn.Module):
    """CleanRL's PPO network: orthogonal, gain 0.01 at the actor's head."""

    def __init__(self) -> None:
        super().__init__()

        def linear(ins: int, outs: int, gain: float = 2**0.5) -> nn.Linear:
            layer = nn.Linear(ins, outs)
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
            return layer

        self.critic = nn.Sequential(linear(8, 64), nn.Tanh(), linear(64, 64), nn.Tanh(), linear(64, 1, 1.0))
        self.actor = nn.Sequential(linear(8, 64), nn.Tanh(), linear(64, 64), nn.Tanh(), linear(64, 4, 0.01))

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(state), self.critic(state)


class NatureNetwork(nn.Module):
    """The Atari network of DQN (Mnih et al. 2015), duelling heads, PyTorch's default initialisation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(3136, 256), nn.ReLU(),
        )  # fmt: skip
        self.value, self.advantage = nn.Linear(256, 1), nn.Linear(256, 6)

    def forward(self, frames: Tensor) -> Tensor:
        state = self.body(frames)
        advantage = self.advantage(state)
        return self.value(state) + advantage - advantage.mean(1, keepdim=True)


class Recommender(nn.Module):
    """DeepFM (Guo et al. 2017): tables shared by a factorisation machine and an MLP; one table per field."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(50, 8) for _ in range(6))
        self.linear = nn.ModuleList(nn.Embedding(50, 1) for _ in range(6))
        self.mlp = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))

    def forward(self, fields: Tensor) -> Tensor:
        rows = torch.stack([table(column) for table, column in zip(self.tables, fields.unbind(1), strict=True)], 1)
        first = sum(table(column) for table, column in zip(self.linear, fields.unbind(1), strict=True))
        second = 0.5 * (rows.sum(1).square() - rows.square().sum(1)).sum(1, keepdim=True)
        return (first + second + self.mlp(rows.flatten(1))).sigmoid()


class PointNetwork(nn.Module):
    """PointNet (Qi et al. 2017) with its transformer net, whose output starts as the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.local, self.head = self._stack(3, 32, 64), nn.Linear(64, 9)
        self.shared, self.classify = (
            self._stack(3, 32, 128),
            nn.Sequential(nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 5)),
        )

    @staticmethod
    def _stack(*sizes: int) -> nn.Sequential:
        layers = (nn.Sequential(nn.Conv1d(i, o, 1), nn.BatchNorm1d(o), nn.ReLU()) for i, o in pairwise(sizes))
        return nn.Sequential(*layers)

    def forward(self, points: Tensor) -> Tensor:
        turn = self.head(self.local(points).amax(2)).view(-1, 3, 3) + torch.eye(3)
        return self.classify(self.shared(turn @ points).amax(2))


class SuperResolution(nn.Module):
    """EDSR (Lim et al. 2017): residual blocks scaled by 0.1, sub-pixel convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 32, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)) for _ in range(4)
        )
        self.tail = nn.Sequential(nn.Conv2d(32, 128, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(32, 3, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        first = state = self.head(image)
        for block in self.blocks:
            state = state + 0.1 * block(state)
        return self.tail(first + state)


class TemporalNetwork(nn.Module):
    """TCN (Bai et al. 2018): weight-normed dilated convolutions, normal(0, 0.01)."""

    def __init__(self) -> None:
        super().__init__()
        norm, self.convs = nn.utils.parametrizations.weight_norm, nn.ModuleList()
        for i in range(6):
            conv = nn.Conv1d(1 if i == 0 else 24, 24, 3, dilation=2**i)
            nn.init.normal_(conv.weight, 0.0, 0.01)
            self.convs.append(norm(conv))
        self.first, self.head = nn.Conv1d(1, 24, 1), nn.Linear(24, 5)

    def forward(self, wave: Tensor) -> Tensor:
        state = wave
        for i, conv in enumerate(self.convs):
            out = conv(functional.pad(state, (2 * 2**i, 0))).relu()
            state = (out + (self.first(state) if i == 0 else state)).relu()
        return self.head(state[..., -1])


class Siamese(nn.Module):
    """One tower called twice; the distance decides (Koch et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(32 * 11 * 11, 32), nn.Sigmoid(),
        )  # fmt: skip
        self.head = nn.Linear(32, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head((self.tower(left) - self.tower(right)).abs())


class Hyper(nn.Module):
    """A hypernetwork: the weights of the main net are another net's output (Ha et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.randn(1, 8) * 0.5)
        self.weights = nn.Linear(8, 64 * 16)
        nn.init.normal_(self.weights.weight, std=0.02)
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x @ self.weights(self.code).view(16, 64)).relu())


def _plain(kind: Callable[..., nn.Module], inputs: Callable[[], Any], *arguments: Any) -> Built:
    return kind(*arguments), inputs()


def _torch_transformer() -> nn.Module:
    return nn.Transformer(64, 4, 2, 2, 128, batch_first=True)


def _sequence(rows: int = 20, batch: int = 4) -> tuple[Tensor]:
    return (torch.randint(0, 120, (rows, batch)),)


def _own(name: str, kind: Callable[..., nn.Module], inputs: Callable[[], Any], *arguments: Any) -> Architecture:
    return Architecture("written-out", name, partial(_plain, kind, inputs, *arguments))


WRITTEN_OUT = (
    _own("gin", GraphNetwork, lambda: (torch.randn(40, 8), torch.randint(0, 40, (2, 120)))),
    _own("dcgan-generator", Generator, lambda: (torch.randn(4, 64, 2, 2),)),
    _own("spectral-discriminator", Discriminator, lambda: (torch.randn(4, 3, 32, 32),)),
    _own("lstm-language-model", LanguageModel, _sequence, "LSTM"),
    _own("gru-language-model", LanguageModel, _sequence, "GRU"),
    _own("rnn-language-model", LanguageModel, _sequence, "RNN"),
    _own("attention-translator", Translator,
         lambda: (torch.randint(0, 120, (4, 9)), torch.randint(0, 120, (4, 7)))),
    _own("nerf", RadianceField, lambda: (torch.rand(64, 3) * 2 - 1,)),
    _own("wavenet", WaveNet, lambda: (torch.randn(2, 1, 128),)),
    _own("coupling-flow", Coupling, lambda: (torch.randn(32, 8),)),
    _own("vq-vae", VectorQuantiser, lambda: (torch.randn(4, 3, 32, 32),)),
    _own("vae", Variational, lambda: (torch.rand(16, 64),)),
    _own("ppo", ActorCritic, lambda: (torch.randn(32, 8),)),
    _own("duelling-dqn", NatureNetwork, lambda: (torch.rand(4, 4, 84, 84),)),
    _own("deepfm", Recommender, lambda: (torch.randint(0, 50, (32, 6)),)),
    _own("pointnet", PointNetwork, lambda: (torch.randn(8, 3, 64),)),
    _own("edsr", SuperResolution, lambda: (torch.randn(2, 3, 16, 16),)),
    _own("tcn", TemporalNetwork, lambda: (torch.randn(8, 1, 100),)),
    _own("siamese", Siamese, lambda: (torch.rand(8, 1, 28, 28), torch.rand(8, 1, 28, 28))),
    _own("hypernetwork", Hyper, lambda: (torch.randn(32, 16),)),
    _own("nn-transformer", _torch_transformer, lambda: (torch.randn(4, 9, 64), torch.randn(4, 7, 64))),
)  # fmt: skip
