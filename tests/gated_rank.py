"""One process of a distributed run on the CPU, behind a gate; test_gate_distributed starts two.

    python gated_rank.py RANK STORE CASE

The exit status is that of an uncaught error where the gate stops the run.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import initlint
from initlint.integrations import gates


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def batch(step: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2 * step + rank)
    x = torch.randn(16, 16, generator=generator)
    return x, torch.randint(0, 4, (16,), generator=generator)


def raising(output: Any, target: Any) -> torch.Tensor:
    raise ZeroDivisionError("by the user's loss")


def main(rank: int, store: str, case: str) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    if case == "healthy":
        print(*trained(rank, gated=False))
        print(*trained(rank, gated=True))
    elif case == "broken":
        model = sharded(net())
        asked = gates.Asked(None, None, False, "raise", {})
        asked.stand(model, lambda: sys.exit("a sharded model was run"), resumed=False)
        refused(model, None)
        refused(net(), None, given={} if rank == 0 else batch(0, rank))
        refused(DistributedDataParallel(net()), nn.CrossEntropyLoss(), select=["no-such-rule"])
        refused(DistributedDataParallel(net()), raising)
        trained(rank, gated=True, broken=True)
    elif case == "interrupted":
        module = net()
        if rank == 0:
            module.forward = interrupted
        initlint.gate(module, batch(0, rank))
    distributed.barrier()  # or the threads of one rank may still wait for the other when it is gone
    distributed.destroy_process_group()


def trained(rank: int, gated: bool, broken: bool = False) -> list[float]:
    """The losses of three steps."""
    module = net()
    if broken:
        nn.init.zeros_(module[2].weight)
        nn.init.constant_(module[2].bias, -1.0)
    model, losses = DistributedDataParallel(module), list[float]()
    if gated:
        initlint.gate(model, batch(0, rank), nn.CrossEntropyLoss())
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(3):
        x, y = batch(step, rank)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def refused(model: nn.Module, loss: Any, given: Any = None, **settings: Any) -> None:
    """Show what the gate raises; the ranks have to be in step afterwards."""
    try:
        initlint.gate(model, batch(0, 0) if given is None else given, loss, **settings)
    except initlint.InitlintError as error:
        print(f"{type(error).__name__}: {error}".replace("\n", " "))


def interrupted(x: torch.Tensor) -> torch.Tensor:
    raise KeyboardInterrupt


def sharded(module: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    fully_shard(module, mesh=init_device_mesh("cpu", (2,)))
    return module


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
