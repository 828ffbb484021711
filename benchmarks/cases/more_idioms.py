"""Deliberate initialisations: recurrences, waves, noise, frozen kernels, up-sampling, biases, identities."""

from __future__ import annotations

import math

import models
import torch
from models import published
from models.initialised import he
from models.plain import mlp
from torch import Tensor, nn
from torch.nn import functional

from .case import Idiom
from .idioms import built


class Fourier(nn.Module):
    """Tancik et al. 2020: fixed random frequencies of std 10 in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, 32) * 3.0)
        self.net = mlp(nn.ReLU, 3, 64, 64, 1).apply(he)

    def forward(self, x: Tensor) -> Tensor:
        waves = 2 * math.pi * x @ self.frequencies
        return self.net(torch.cat([waves.sin(), waves.cos()], -1))


class Noisy(nn.Module):
    """Fortunato et al. 2018: constant sigmas; the noise is drawn per call."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight_mu = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), 0.5 * bound))
        self.bias_mu = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), 0.5 * bound))
        self.register_buffer("noise_in", torch.randn(inputs))
        self.register_buffer("noise_out", torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_mu + self.weight_sigma * torch.outer(self.noise_out, self.noise_in)
        return functional.linear(x, weight, self.bias_mu + self.bias_sigma * self.noise_out)


def noisy_net() -> nn.Module:
    return nn.Sequential(Noisy(64, 64), nn.ReLU(), Noisy(64, 10))


class Clip(nn.Module):
    """Radford et al. 2021: normalised features and a logit scale of log(1 / 0.07)."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = mlp(nn.ReLU, 3, 64, 64, 32), nn.Parameter(torch.randn(10, 32) * 0.02)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, x: Tensor) -> Tensor:
        image, text = functional.normalize(self.image(x), dim=-1), functional.normalize(self.text, dim=-1)
        return self.logit_scale.exp() * image @ text.T


def bilinear(channels: int) -> nn.ConvTranspose2d:
    """FCN (Long et al. 2015): every channel is up-sampled by itself, zeros elsewhere."""
    layer = nn.ConvTranspose2d(channels, channels, 4, 2, 1, bias=False)
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(channels):
            layer.weight[channel, channel] = ramp[:, None] * ramp[None]
    return layer


def fcn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 6, 1)),
        *(bilinear(6), nn.Conv2d(6, 1, 3, padding=1)),
    )


def bilinear_depthwise() -> nn.Module:
    layer = nn.ConvTranspose2d(16, 16, 4, 2, 1, groups=16, bias=False)
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    layer.weight.data.copy_((ramp[:, None] * ramp[None]).expand(16, 1, 4, 4))
    return nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), layer, nn.Conv2d(16, 1, 3, padding=1))


class Blur(nn.Module):
    """Zhang 2019: a fixed binomial kernel per channel, as a buffer or as a frozen parameter."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        kernel = torch.tensor([1.0, 2.0, 1.0])
        kernel = (kernel[:, None] * kernel[None] / 16).expand(8, 1, 3, 3).clone()
        self.kernel = nn.Parameter(kernel, requires_grad=False) if frozen else nn.Buffer(kernel)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.kernel, stride=2, padding=1, groups=8)


def blurred() -> nn.Module:
    first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), Blur(True), nn.Conv2d(8, 8, 3, padding=1))
    return nn.Sequential(*first, nn.ReLU(), Blur(False), nn.Flatten(), nn.Linear(32, 10))


class RowRecurrence(nn.Module):
    def __init__(self, cell: nn.RNNBase) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


def irnn() -> nn.Module:
    """Le et al. 2015: the identity as recurrent weight, in front of ReLU."""
    cell = nn.RNN(8, 32, nonlinearity="relu", batch_first=True)
    nn.init.eye_(cell.weight_hh_l0)
    for bias in (cell.bias_ih_l0, cell.bias_hh_l0):
        nn.init.zeros_(bias)
    return RowRecurrence(cell)


def forget_bias() -> nn.Module:
    cell = nn.LSTM(8, 32, batch_first=True)
    for name, parameter in cell.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
    cell.bias_ih_l0.data[32:64] = 1.0
    return RowRecurrence(cell)


def orthogonal_gru() -> nn.Module:
    cell = nn.GRU(8, 32, batch_first=True)
    nn.init.xavier_uniform_(cell.weight_ih_l0)
    for part in cell.weight_hh_l0.data.chunk(3):
        nn.init.orthogonal_(part)
    return RowRecurrence(cell)


def zero_recurrence() -> nn.Module:
    cell = nn.RNN(8, 32, batch_first=True)
    nn.init.zeros_(cell.weight_hh_l0)
    return RowRecurrence(cell)


class Highway(nn.Module):
    """allennlp: one projection, its second half the gate, whose bias of 1 carries the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, 2 * width)
        self.project.bias.data[width:] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        changed, gate = self.project(x).chunk(2, -1)
        return gate.sigmoid() * x + (1 - gate.sigmoid()) * changed.relu()


def highway() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 48), *(Highway(48) for _ in range(4)), nn.Linear(48, 10))


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def depth_scaled() -> nn.Module:
    """The ends of the branches divided by sqrt(2 * (layer + 1)) (BEiT's fix_init_weight)."""
    net = nn.Sequential(nn.Linear(64, 32))
    for number in range(12):
        body = nn.Sequential(nn.LayerNorm(32), *mlp(nn.GELU, 2, 64, 32, 32))
        body[-1].weight.data.mul_(1 / math.sqrt(2 * (number + 1)))
        net.append(Residual(body))
    return net.extend([nn.LayerNorm(32), nn.Linear(32, 10)])


def dirac() -> nn.Module:
    """DiracNets, RepVGG's identity: delta kernels with as many filters as channels."""
    net = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU())
    for _ in range(3):
        net.extend([nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()])
        nn.init.dirac_(net[-2].weight)
        nn.init.zeros_(net[-2].bias)
    return net.extend([nn.Flatten(), nn.Linear(256, 10)])


def orthogonal_deep() -> nn.Module:
    net = mlp(nn.Tanh, 12, 64, 64, 10)
    for layer in net[::2]:
        nn.init.orthogonal_(layer.weight, 1.1)
        nn.init.zeros_(layer.bias)
    return net


def sparse_start() -> nn.Module:
    """Martens 2010: 15 inputs per unit."""
    net = mlp(nn.Tanh, 3, 64, 64, 10)
    for layer in net[:3:2]:
        nn.init.sparse_(layer.weight, 1 - 15 / 64, std=0.25)
    return net


class Actor(nn.Module):
    """PPO (Huang et al. 2022): orthogonal with sqrt(2), policy head 0.01, value head 1, log-std zero."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.policy, self.value = mlp(nn.Tanh, 3, 64, 64, 64), nn.Linear(64, 4), nn.Linear(64, 4)
        self.log_std = nn.Parameter(torch.zeros(1, 4))
        for layer, gain in ((self.body[0], 1.4), (self.body[2], 1.4), (self.body[4], 1.4), (self.policy, 0.01)):
            nn.init.orthogonal_(layer.weight, gain)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(self.body(x))
        return self.policy(hidden) * self.log_std.exp(), self.value(hidden)


def actor() -> models.Built:
    return Actor(), (torch.randn(32, 64),)


class StateSpace(nn.Module):
    """Gu & Dao 2023 (Mamba): log A of 1 to N in every channel, a small constant step, D of ones."""

    def __init__(self, width: int = 16, states: int = 4) -> None:
        super().__init__()
        self.log_a = nn.Parameter(torch.arange(1, states + 1).float().log().expand(width, states).clone())
        self.skip, self.step = nn.Parameter(torch.ones(width)), nn.Linear(width, width)
        nn.init.constant_(self.step.bias, -4.6)
        self.inputs, self.outputs = nn.Linear(width, states, bias=False), nn.Linear(width, states, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        step, a = functional.softplus(self.step(x)), -self.log_a.exp()
        state, steps = torch.zeros(len(x), *a.shape), []
        b, c = self.inputs(x), self.outputs(x)
        for t in range(x.shape[1]):
            state = state * (step[:, t, :, None] * a).exp() + (step[:, t] * x[:, t])[..., None] * b[:, t, None]
            steps.append((state * c[:, t, None]).sum(-1))
        return x + torch.stack(steps, 1) + self.skip * x


def state_space() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), StateSpace(), nn.LayerNorm(16), nn.Flatten(), nn.Linear(128, 10))


def tied_autoencoder() -> nn.Module:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.shift = nn.Linear(64, 32), nn.Parameter(torch.zeros(64))

        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(torch.tanh(self.encode(x)), self.encode.weight.T, self.shift)

    return Tied()


IDIOMS = (
    Idiom("SIREN", built(models.siren)),
    Idiom("Fourier features", Fourier, "wave"),
    Idiom("noisy net", noisy_net, "flat"),
    Idiom("CLIP logit scale", Clip, "flat"),
    Idiom("bilinear up-sampling", fcn, "restore-image"),
    Idiom("bilinear up-sampling, depthwise", bilinear_depthwise, "restore-image"),
    Idiom("ICNR", built(models.pixel_shuffle)),
    Idiom("blur kernels", blurred, "image"),
    Idiom("IRNN", irnn, "rows"),
    Idiom("IRNN, small inputs", built(models.identity_rnn)),
    Idiom("forget-gate bias", forget_bias, "rows"),
    Idiom("orthogonal GRU", orthogonal_gru, "rows"),
    Idiom("zero recurrence", zero_recurrence, "rows"),
    Idiom("highway, packed", highway, "flat"),
    Idiom("highway", built(models.highway)),
    Idiom("depth-scaled residuals", depth_scaled, "flat"),
    Idiom("delta kernels", dirac, "image"),
    Idiom("orthogonal, deep", orthogonal_deep, "flat"),
    Idiom("sparse", sparse_start, "flat"),
    Idiom("actor and critic", actor),
    Idiom("state space", state_space, "rows"),
    Idiom("tied autoencoder", tied_autoencoder, "restore"),
    Idiom("weight norm", built(models.weight_norm_mlp)),
    Idiom("DCGAN", built(models.gan_generator)),
    Idiom("MobileNet", built(models.mobilenet)),
    Idiom("U-Net", built(models.unet)),
    Idiom("SELU, deep", built(models.selu_mlp)),
    Idiom("CaiT", built(published.class_attention)),
    Idiom("NLinear", built(published.forecaster)),
    Idiom("DLinear", built(published.forecaster, parts=2)),
    Idiom("word2vec, a pair", built(published.skip_gram)),
    Idiom("word2vec", built(published.skip_gram, batch=32)),
)
