"""Two layers start with the same drawn weights, bit for bit.

## Why it matters

Layers are meant to start different. Copies come from `copy.deepcopy` of an initialised block, from one seed used for
every layer, or from an initialiser object that is shared.

- In parallel, with equal readouts, they get equal gradients and never separate: an ensemble of critics is one critic.
  That is an error.
- One behind the other they separate, but start correlated: a warning.
- In parallel, told apart by a router or by different readouts, copies may be on purpose (up-cycled experts): a note.

The same goes for maps that are stacked in one tensor (critic, in, out). Only trainable tensors that are not tied are
compared, and only values that look drawn; a head that equals its table is tied to it.

## Example

    self.critic2 = copy.deepcopy(self.critic1)
    nn.TransformerEncoder(layer, num_layers=6)   # deep-copies `layer` six times

## Fix

Initialise every copy anew: `for p in self.critic2.parameters(): ...`, or build each with its own draw.

## References

- EdanToledo/Stoix issue 72: identical twin critics
- pytorch issues 72253, 86274: layers of nn.TransformerEncoder start identical
- Komatsuzaki et al. 2023, Sparse Upcycling (arXiv:2212.05055): experts copied on purpose
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from initlint.plugin import Context, Liveness, Needs, Reinit, Role, Several, Severity, Suspicion, Twin, again, rule


@rule(
    category="symmetry",
    needs=Needs.LIVENESS,
    message={
        "default": "{copies} tensors equal those of {other} bit for bit",
        "permanent": "{copies} tensors equal those of {other} bit for bit and get equal gradients: they never differ",
        "unless": "{copies} tensors equal those of {other} bit for bit and get equal gradients: they never differ, "
        "unless one of the two is frozen, which a file does not say",
        "members": "{equal} of the {members} stacked maps start equal to another one bit for bit",
        "together": "{equal} of the {members} stacked maps start equal and get equal gradients: they never differ",
    },
)
def duplicate_layers(context: Context, options: object) -> Iterator[Suspicion]:
    alike: dict[tuple[str, Severity, str], dict[str, list[Twin]]] = {}
    twins_of_a_kind = [twin for twin in context.signals.twins if not _is_tied(context, twin)]
    for (module, other), twins in _by_module(twins_of_a_kind).items():
        alike.setdefault((other, *_judged(context, twins)), {})[module] = twins
    for (other, severity, message), copies in alike.items():  # all copies of one layer are one finding
        twins = [twin for each in copies.values() for twin in each]
        data = {"copies": len(twins), "other": other, **({"modules": list(copies)} if len(copies) > 1 else {})}
        yield Suspicion(twins[0].tensor, severity, data, _redrawn(context, twins), message, proven=True)
    told = set[tuple[str, bool]]()
    for stacked in context.signals.members:
        permanent = stacked.together > 0 and context.liveness(stacked.tensor) is Liveness.LIVE
        place = stacked.tensor.rpartition(".")[0], permanent
        if place not in told:  # the matrices of one ensemble are one finding
            told.add(place)
            data = {"equal": stacked.together if permanent else stacked.equal, "members": stacked.count}
            severity, message = (Severity.ERROR, "together") if permanent else (Severity.NOTE, "members")
            yield Suspicion(stacked.tensor, severity, data, message=message, proven=True)


def _judged(context: Context, twins: Sequence[Twin]) -> tuple[Severity, str]:
    """Severity and message."""
    if any(twin.separated or not _is_live(context, twin) for twin in twins):
        return (Severity.WARNING if _in_series(context, twins[0]) else Severity.NOTE), "default"
    return (Severity.ERROR, "permanent") if context.model.tells_frozen else (Severity.NOTE, "unless")


def _is_tied(context: Context, twin: Twin) -> bool:
    """A head that starts as the table it shares, of which an exporter writes a transposed copy."""
    both = [context.model.tensor(address) for address in (twin.tensor, twin.other)]
    return [each is not None and each.role is Role.TABLE for each in both].count(True) == 1


def _by_module(twins: Sequence[Twin]) -> dict[tuple[str, str], list[Twin]]:
    """Twins by the pair of modules that differ: ("layers.1", "layers.0")."""
    found: dict[tuple[str, str], list[Twin]] = {}
    for twin in twins:
        one, other = twin.tensor.split("."), twin.other.split(".")
        while len(one) > 1 and len(other) > 1 and one[-1] == other[-1]:
            one, other = one[:-1], other[:-1]
        found.setdefault((".".join(one), ".".join(other)), []).append(twin)
    return found


def _redrawn(context: Context, twins: Sequence[Twin]) -> Several | None:
    """The later copy drawn once more, as far as it is drawn at all."""
    tensors = {tensor.address: tensor for tensor in context.model.tensors}
    tensors_of = [tensors[twin.tensor] for twin in twins if twin.tensor in tensors]
    edits = [again(context.model, each, context.stats.get(each.address)) for each in tensors_of]
    drawn = tuple(edit for edit in edits if isinstance(edit, Reinit))
    return Several(drawn) if drawn else None


def _is_live(context: Context, twin: Twin) -> bool:
    return context.liveness(twin.tensor) is Liveness.LIVE and context.liveness(twin.other) is Liveness.LIVE


def _in_series(context: Context, twin: Twin) -> bool:
    one, other = context.model.owner(twin.tensor), context.model.owner(twin.other)
    if one is None or other is None:  # outside every layer, or an expert that was not chosen
        return False
    return context.model.is_upstream(one.name, other.name) or context.model.is_upstream(other.name, one.name)
