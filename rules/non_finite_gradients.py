"""The first backward pass gives NaN or infinity although the forward pass is finite.

## Why it matters

The loss of step one looks fine, the optimiser writes NaN into every weight the gradient reaches, and the loss of step
two is NaN. Functions that are finite at a point may have no finite slope there: a square root or a power at zero (the
distance of two equal points, the length of a zero vector), an arc cosine at one, a quotient that `where` leaves out of
the result but not out of the gradient, for which 0 * inf is NaN too.

The finding names the first operation that was given finite gradients and handed on others, and the last layer whose
weights get them. It needs the module: the gradients of a file are estimated and leave this out.

## Example

    distance = (a - b).square().sum(-1).sqrt()             # a equals b somewhere, as on the diagonal
    y = torch.where(x > 0, x.sqrt(), torch.zeros_like(x))  # a NaN left out, but 0 * NaN is NaN

## Fix

An epsilon inside of the root (`(squares + 1e-12).sqrt()`) or `torch.cdist`, which takes care of it; `where` on the
argument too, before the function: `torch.where(x > 0, x, 1.0).sqrt()`.

## References

- PyTorch FAQ "my loss is NaN": sqrt at zero; PyTorch autograd notes: gradients of non-differentiable functions
- Maclaurin et al., JAX FAQ "gradients contain NaN where using where": the double-where trick
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import Context, Needs, Severity, Suspicion, rule

WORDS = {"nan": "NaN", "inf": "infinity"}


@rule(
    category="gradient",
    needs=Needs.BACKWARD,
    message={
        "default": "the forward pass is finite, but back through {operation} goes {what}: it reaches {count} "
        "parameters, which are NaN after one step",
        "single": "the forward pass is finite, but back through {operation} goes {what}: it is NaN after one step",
    },
    explains=("exploding-gradient", "vanishing-gradient"),
)
def non_finite_gradients(context: Context, options: object) -> Iterator[Suspicion]:
    origin = context.signals.gradient_origin
    if origin is None:
        return
    data: dict[str, str | int | list[str]] = {
        "what": WORDS[origin.kind],
        "operation": origin.operation,
        "count": len(origin.tensors),
        "tensors": list(origin.tensors),
    }
    layer = next((each for each in context.model.layers if each.name == origin.layer), None)
    at = layer.weight if layer is not None else origin.tensors[0]
    message = "single" if len(origin.tensors) == 1 else "default"
    yield Suspicion(at, Severity.ERROR, data, message=message, proven=True)
