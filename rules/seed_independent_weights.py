"""Weights that look drawn are the same whatever the seed.

## Why it matters

Runs with different seeds are meant to tell luck from merit. A tensor that is drawn from a generator of its own, with a
seed written into the code, is the same in all of them; where several layers do so with one seed, they are copies of
each other. Nothing breaks, but the seeds promise more than they hold.

The builder is called once more with another seed for PyTorch, numpy and Python. Of the trainable tensors those are
compared that look like independent draws of an initialisation scheme: tables of sines, ramps, identities and constants
are meant to be fixed. Where most of them are the same, the builder seeds itself, keeps its model or loads weights: one
note for the model.

## Example

    rng = np.random.default_rng(0)
    self.weight = nn.Parameter(torch.tensor(rng.normal(0, 0.02, (64, 64)), dtype=torch.float32))

## Fix

Draw from PyTorch's global generator, or from one whose seed is an argument of the builder.

## References

- netket issue 241: the same seed for every layer
- Bouthillier et al. 2021, Accounting for Variance in Machine Learning Benchmarks (arXiv:2103.03098)
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import Context, Needs, Severity, Suspicion, rule


@rule(
    category="numerics",
    needs=Needs.BUILDS,
    message={
        "default": "all {count} values look drawn and are the same under two seeds",
        "whole": "{same} of {count} drawn tensors are the same under two seeds: the builder sets a seed or loads them",
        "kept": "the builder gave {count} tensors that it had given before, so nothing can be said of seeds",
    },
)
def seed_independent_weights(context: Context, options: object) -> Iterator[Suspicion]:
    builds = context.builds
    same = len(builds.fixed) + builds.learned
    if builds.shared:
        yield Suspicion(context.model, Severity.NOTE, {"count": builds.shared}, message="kept")
    elif builds.learned or len(builds.fixed) > builds.varying:
        data = {"same": same, "count": same + builds.varying}
        yield Suspicion(context.model, Severity.NOTE, data, message="whole")
    else:
        for each in builds.fixed:
            yield Suspicion(each.address, Severity.WARNING, {"count": each.size})
