"""Modules whose plain run would say little: legacy spectral norms, sparse tensors, lazy buffers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import initlint  # noqa: E402
from initlint.load.stand_ins import standing_in  # noqa: E402

OLD = torch.nn.utils.spectral_norm
NEW = torch.nn.utils.parametrizations.spectral_norm


def critic(norm):
    return nn.Sequential(
        norm(nn.Conv2d(3, 32, 3, 1, 1)),
        nn.LeakyReLU(0.1),
        norm(nn.Conv2d(32, 32, 4, 2, 1)),
        nn.LeakyReLU(0.1),
        norm(nn.Conv2d(32, 64, 4, 2, 1)),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        norm(nn.Linear(64 * 16, 1)),
    )


class Graph(nn.Module):
    """Kipf and Welling's graph convolutions, the adjacency a buffer or an argument."""

    def __init__(self, adjacency=None):
        super().__init__()
        self.register_buffer("adjacency", adjacency)
        self.first = nn.Linear(32, 16)
        self.last = nn.Linear(16, 7)

    def forward(self, x, adjacency=None):
        adjacency = self.adjacency if adjacency is None else adjacency
        return self.last(adjacency @ torch.relu(self.first(adjacency @ x)))


def adjacency():
    links = torch.eye(40) + (torch.rand(40, 40) < 0.1).float()
    return links / links.sum(1, keepdim=True)


def loud(report):
    return [(each.severity.name, each.rule, each.address) for each in report.findings if each.severity.name != "NOTE"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("norm", [OLD, NEW])
def test_a_fresh_spectral_norm_is_probed_with_its_singular_vectors_iterated(norm, seed):
    torch.manual_seed(seed)
    module = critic(norm)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    report = initlint.check(module, torch.randn(16, 3, 16, 16))
    assert not loud(report)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_bias_beside_a_spectral_norm_is_told_as_ever():
    torch.manual_seed(0)
    module = nn.Sequential(OLD(nn.Linear(16, 64)), nn.ReLU(), OLD(nn.Linear(64, 64)), nn.ReLU(), nn.Linear(64, 1))
    nn.init.constant_(module[2].bias, -10.0)
    assert ("ERROR", "dead-relu-bias", "2.bias") in loud(initlint.check(module, torch.randn(64, 16)))


def test_the_norm_of_training_is_the_modules_own():
    torch.manual_seed(0)
    one, other = OLD(nn.Linear(8, 8)), OLD(nn.Linear(8, 8))
    other.load_state_dict(one.state_dict())
    x = torch.randn(4, 8)
    with standing_in():
        ours = one(x)
    assert torch.equal(ours, other(x))
    assert torch.equal(one.weight_u, other.weight_u)


def test_its_gradient_is_that_of_the_iterated_norm():
    torch.manual_seed(0)
    layer = OLD(nn.Linear(8, 6))
    x = torch.randn(4, 8)
    for _ in range(50):
        layer(x)
    layer.eval()
    layer(x).sum().backward()
    expected, layer.weight_orig.grad = layer.weight_orig.grad, None
    with standing_in():
        layer(x).sum().backward()
    torch.testing.assert_close(layer.weight_orig.grad, expected)


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr", "to_sparse_csc"])
def test_a_sparse_buffer_is_no_obstacle_to_putting_back(layout):
    torch.manual_seed(0)
    module = Graph(getattr(adjacency(), layout)())
    held, values = module.adjacency, module.adjacency.to_dense()
    report = initlint.check(module, torch.randn(40, 32))
    assert not loud(report)
    assert module.adjacency is held
    assert torch.equal(held.to_dense(), values)


def test_a_sparse_buffer_that_the_forward_writes_into_is_put_back():
    torch.manual_seed(0)

    class Writing(Graph):
        def forward(self, x):
            self.adjacency.mul_(2.0)
            return super().forward(x)

    module = Writing(adjacency().to_sparse())
    values = module.adjacency.to_dense()
    initlint.check(module, torch.randn(40, 32))
    assert torch.equal(module.adjacency.to_dense(), values)


def test_a_net_with_a_sparse_input_is_probed():
    torch.manual_seed(0)
    inputs = (torch.randn(40, 32), adjacency().to_sparse())
    healthy = initlint.check(Graph(), inputs)
    assert "all clean" in str(healthy)  # and nothing skipped
    broken = Graph()
    for each in (broken.first, broken.last):
        nn.init.zeros_(each.weight)
        nn.init.zeros_(each.bias)
    assert ("ERROR", "zero-weights", "first.weight") in loud(initlint.check(broken, inputs))


def test_lazy_buffers_are_a_reason_not_to_run():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    report = initlint.check(module, torch.randn(8, 3, 12, 12))
    assert "lazy modules" in str(report)
