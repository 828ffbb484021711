"""The exporter multiplied batch norms into the convolutions before them, so the file is not the model that will train.

## Why it matters

A default export is made for inference: each batch norm is replaced by its running statistics. In an untrained model
those are still mean 0 and variance 1, so the norms vanish from the file and the signal of a ResNet-101 grows to 2e4
that is normalised at every layer in training. What the file shows of scales, signals and gradients is not true of the
model, so the rules about them give way to this note. Rules about NaN, zeros and symmetry still speak.

## Example

    torch.onnx.export(model, x, "model.onnx")   # evaluation mode, norms folded

## Fix

Export the model as it trains. Newer exporter: `torch.onnx.export(model, x, "model.onnx", dynamo=True, optimize=False)`.
Older one: `torch.onnx.export(model.train(), x, "model.onnx", dynamo=False,
training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False)`.

## References

- PyTorch documentation, torch.onnx: `training`, `do_constant_folding`, `optimize`
- README, "An honest export"
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import Advice, Context, Needs, Severity, Suspicion, rule

RECIPE = (
    'torch.onnx.export(model, inputs, "model.onnx", dynamo=True, optimize=False)  # or dynamo=False, '
    "training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False"
)


@rule(
    category="provenance",
    needs=Needs.STRUCTURE,
    message=(
        "the exporter folded batch norms into {count} convolutions (first: {first}), "
        "so scales and signals cannot be judged; export the model as it trains"
    ),
    mutes=("scale", "signal", "gradient"),
)
def folded_norm(context: Context, options: object) -> Iterator[Suspicion]:
    folded = context.model.folded_norms
    if folded and context.model.format != "torch":  # of a module: frozen-norm
        yield Suspicion(
            at=context.model,
            severity=Severity.NOTE,
            data={"count": len(folded), "first": folded[0].layer, "evidence": folded[0].evidence},
            fix=Advice("", RECIPE),
        )
