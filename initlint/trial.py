"""Fixes are tried before they are told: what they cure is confirmed, what nothing cures is the architecture's own.

The model is probed again with fixes applied, and the same rules judge it again. At most ``PROBES`` times, and never
where nothing is suspected:

1. With the fixes of all causes at once. What is gone is confirmed, with the numbers before and after. Before that,
   where a symptom may come from it, with what no map owns of order one, if it is far above.
2. Where tensors stand still side by side, with those of them that no map owns (thresholds, scales, centres) elsewhere:
   one that sets the others free is their cause.
3. Where a symptom stays, also with every layer that it may come from drawn by the book. A symptom that stays even then
   is no fault of the initialisation, and a note.
4. With one cause's fixes alone, the likeliest first: what is gone is that cause's consequence, and folded under it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

from .causes import Place, fold, place
from .dependence import is_drowned
from .examined import Examined
from .fixes import Edit, Several, edits_of
from .loosening import free_the_stuck
from .made import is_idle, settable
from .model import Layer, Model
from .overflowing import follow_the_overflow
from .plugin import Finding, Needs, Rule, Severity
from .redraw import tamed, twin
from .verdicts import settled

PROBES = 5
"""A broken model costs at most this many probes beyond the first."""

SINGLES = 4
"""Causes are tried one by one up to this number, and rule by rule beyond."""

MANY = 2
"""More layers than this that are off in scale are a fault of the whole, if one fix for all of them cures a symptom."""

MEASURED = Needs.SIGNAL | Needs.FORWARD | Needs.BACKWARD | Needs.LIVENESS
"""What another tensor's fix may change."""

Examine = Callable[[tuple[Edit, ...]], Examined]
"""Probes and judges with edits. Raises TargetError."""


def settle(start: Examined, rules: Mapping[str, Rule], examine: Examine) -> tuple[Finding, ...]:
    """What is to be reported of ``start``: findings confirmed, made notes, or folded under their cause.

    Where ``examine`` raises, the exception passes: the caller has the findings that were not tried.
    """
    folded = fold(start.context.model, start.findings, rules)
    subjects = _subjects(folded)
    if not subjects:
        return tuple(folded)
    trial = Trial(start, rules, examine, subjects)
    trial.tame()
    trial.confirm()
    free_the_stuck(trial)
    follow_the_overflow(trial)
    trial.look_for_the_own()
    trial.attribute()
    return settled(trial, folded)


def _subjects(folded: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors and warnings, without those that a note explains."""
    notes = {place(finding) for finding in folded if finding.severity is Severity.NOTE}
    return tuple(
        finding
        for finding in folded
        if finding.severity >= Severity.WARNING
        and (finding.caused_by is None or (finding.caused_by.rule, finding.caused_by.address) not in notes)
    )


@dataclass
class Trial:
    """What was tried, and what came of it."""

    start: Examined
    rules: Mapping[str, Rule]
    examine: Examine
    subjects: tuple[Finding, ...]
    left: int = PROBES
    tried: set[Edit] = field(default_factory=set)
    confirming: Examined | None = None
    """With all causes' fixes at once."""
    revealed: dict[Place, Finding] = field(default_factory=dict)
    """Faults of tensors that no fix has touched, which the fixes of others brought to light."""
    causes: list[Finding] = field(default_factory=list)
    """Headlines with a fix that can be tried."""
    confirmed: dict[Place, Examined] = field(default_factory=dict)
    """Where the suspicion was gone, by the suspicion's place."""
    joint: set[Place] = field(default_factory=set)
    """Those of them whose suspicion went with more than their own fix applied."""
    verified: set[Place] = field(default_factory=set)
    fixes: dict[Place, Several] = field(default_factory=dict)
    """Of symptoms whose own fix does not help, or that have none, and that a redraw has cured."""
    freed: dict[Place, tuple[str, ...]] = field(default_factory=dict)
    """Of those the ones that tensors outside maps bring about, and their addresses."""
    own: set[Place] = field(default_factory=set)
    cause_of: dict[Place, Finding] = field(default_factory=dict)

    @property
    def model(self) -> Model:
        return self.start.context.model

    def _tensor(self, address: str) -> str:
        """The tensor of a packed part."""
        tensor = self.model.tensor(address)
        return address if tensor is None else tensor.address

    def is_symptom(self, finding: Finding) -> bool:
        """Whether it is about what the model does, not about what a tensor holds."""
        rule = self.rules[finding.rule]
        asked = rule.needs if finding.tensor is not None else rule.needs | rule.uses
        return not finding.proven and bool(asked & MEASURED)

    def is_overflow(self, finding: Finding) -> bool:
        """Whether it tells where the forward pass first gives NaN or infinity."""
        overflows = self.start.context.signals.origin is not None
        return overflows and finding.proven and finding.category == "signal"

    def depends(self, finding: Finding) -> bool:
        """Whether another tensor's fix could cure it at all."""
        rule = self.rules[finding.rule]
        return bool((rule.needs | rule.uses) & MEASURED)

    @cached_property
    def _editable(self) -> frozenset[str]:
        every = (*self.model.tensors, *self.model.leaves)
        known = {address for tensor in every for address in (tensor.address, *tensor.part_addresses)}
        return frozenset(known - self.model.uneditable)

    def edits(self, finding: Finding) -> tuple[Edit, ...]:
        """Those of its fix that can be applied."""
        fix = self.fixes.get(place(finding), finding.fix)
        return tuple(edit for edit in edits_of(fix) if edit.tensor in self._editable)

    def _twin(self, layers: Iterable[Layer], by_the_book: bool) -> tuple[Edit, ...]:
        """What of the twin differs from the model and can be applied."""
        edits = settable(self.model, twin(self.model, layers, by_the_book), self.start.context.stats)
        stats = self.start.context.stats
        return tuple(
            each for each in edits if each.tensor in self._editable and not is_idle(each, stats.get(each.tensor))
        )

    def attempt(self, findings: Iterable[Finding], first: Sequence[Edit] = ()) -> Examined:
        """Of two edits of a tensor the later one holds: a finding knows better than the book what it wants."""
        edits = (*first, *(edit for finding in findings for edit in self.edits(finding)))
        self.tried.update(edits)
        self.left -= 1
        return self.examine(tuple(dict.fromkeys(edits)))

    # -- 1 ---------------------------------------------------------------------------------------------------------

    def tame(self) -> None:
        """What is far above order one although nobody draws it so is likelier to blame than weights by the book."""
        symptoms = [each for each in self.subjects if self.is_symptom(each)]
        proven = {edit.tensor for each in self.subjects if each.proven for edit in self.edits(each)}
        if not symptoms or proven.issuperset(edit.tensor for edit in self._free):
            return
        after = self.attempt((), self._free)
        cured = [each for each in symptoms if self.is_cured(each, after)]
        if self._surplus(after):
            return
        for each in cured:
            self.found(each, self._free)
        self.note_cured(after, cured)

    def found(self, finding: Finding, edits: tuple[Edit, ...]) -> None:
        """A fix of ``finding`` that is not its own."""
        self.fixes[place(finding)] = Several(edits)
        if edits == self._free:
            self.freed[place(finding)] = tuple(edit.tensor for edit in edits)
        self.causes.append(finding)

    def confirm(self) -> None:
        """All causes' fixes at once."""
        heads = [each for each in self.subjects if each.caused_by is None and self.edits(each)]
        untried = [each for each in heads if each not in self.causes]
        self.causes += untried
        if untried:
            self.confirming = self.attempt(self.causes)
            after = self._with_what_drowns(self.confirming)
            if after is not None:
                self.note_cured(after, self.causes)
                self._note_revealed(after)

    def _with_what_drowns(self, after: Examined) -> Examined | None:
        """With the fixes of what was as loud as a cause, and drowns the inputs without it; None where none helps."""
        if not is_drowned(self.start.context.signals, after.context.signals):
            return after
        loud = [each for at, each in after.loud.items() if at not in self.start.loud]
        fresh = [each for each in loud if each.severity is Severity.ERROR]
        more = tuple(dict.fromkeys(edit for each in fresh for edit in self.edits(each)))
        if not more or self.left <= 0:
            return None
        again = self.attempt(self.causes, more)
        if is_drowned(self.start.context.signals, again.context.signals):
            return None
        for each in self.causes:
            self.fixes[place(each)] = Several((*self.edits(each), *more))
        self.confirming = again
        return again

    def _note_revealed(self, after: Examined) -> None:
        """What is wrong with a tensor may show only once the signal gets there."""
        touched = {self._tensor(edit.tensor) for cause in self.causes for edit in self.edits(cause)}
        for at, finding in after.loud.items():
            own = finding.tensor is not None and self._tensor(finding.tensor) not in touched
            another = not self.is_symptom(finding) and not self.is_overflow(finding)
            if at not in self.start.loud and own and another and self.edits(finding):
                self.revealed[at] = finding
        self.subjects += tuple(self.revealed.values())

    def note_cured(self, after: Examined, tried: Sequence[Finding]) -> None:
        """``tried`` are those whose fixes, or others in their place, were applied."""
        cured = [finding for finding in self.subjects if self.is_cured(finding, after)]
        clean = not self._surplus(after)
        known = self.verified if clean else self.confirmed.keys()
        fresh = [finding for finding in cured if place(finding) not in known]
        applied = {edit for finding in tried for edit in self.edits(finding)}
        self.confirmed |= {place(finding): after for finding in fresh}
        self.joint |= {place(finding) for finding in fresh if not applied.issubset(self.edits(finding))}
        if clean:
            places = {place(finding) for finding in tried}
            self.verified |= {
                place(each)
                for each in cured
                if place(each) in places or applied.issuperset(self.edits(each) or (None,))
            }

    def is_cured(self, finding: Finding, after: Examined) -> bool:
        """A symptom may also have moved: many rules name only the first layer that shows it."""
        loud = after.loud
        if place(finding) in loud:
            return False
        moved = any(rule == finding.rule for rule, _ in loud.keys() - self.start.loud.keys())
        return not (moved and (self.is_symptom(finding) or self.is_overflow(finding)))

    def _surplus(self, after: Examined) -> list[Finding]:
        """What the fixes have brought about; not what others mend, and only shows now that the signal gets there."""
        before = {rule for rule, _ in self.start.loud}
        touched = {self._tensor(edit.tensor) for cause in self.causes for edit in self.edits(cause)}
        return [
            each
            for at, each in after.loud.items()
            if at not in self.start.loud
            and at not in self.revealed
            and each.rule not in before
            and {self._tensor(edit.tensor) for edit in self.edits(each)} <= touched
        ]

    # -- 3 ---------------------------------------------------------------------------------------------------------

    def look_for_the_own(self) -> None:
        """What the first fixes left: faults of their own, symptoms that a redraw cures, and the architecture's."""
        known = {place(cause) for cause in self.causes}
        left = [each for each in self.left_over() if place(each) not in known]
        untried = [each for each in left if not self.tried.issuperset(self.edits(each))]
        if untried:  # taken for consequences and still there without their cause, or hidden behind it
            self.causes += untried
            self.note_cured(self.attempt(self.causes), self.causes)
        symptoms = [each for each in self.left_over() if self.is_symptom(each) or self.is_overflow(each)]
        suspects = {place(each): self.suspects(each) for each in symptoms}
        for redraw in self._redraws():
            redraws = {at: redraw(layers) for at, layers in suspects.items()}
            symptoms = [each for each in symptoms if place(each) not in self.confirmed and redraws[place(each)]]
            if not symptoms or self.left <= 0:
                return
            drawn = tuple(dict.fromkeys(edit for each in symptoms for edit in redraws[place(each)]))
            after = self.attempt([each for each in self.causes if not self.is_symptom(each)], drawn)
            self.note_cured(after, symptoms)
            for each in symptoms:
                if place(each) in self.confirmed:
                    self.found(each, redraws[place(each)])
        self.own = {place(each) for each in symptoms if place(each) not in self.confirmed and self.is_symptom(each)}

    def _redraws(self) -> Iterator[Callable[[list[Layer]], tuple[Edit, ...]]]:
        """What may cure a symptom whose own fix does not, the likeliest first."""
        yield partial(self._twin, by_the_book=True)
        yield partial(self._twin, by_the_book=False)

    @cached_property
    def _free(self) -> tuple[Edit, ...]:
        """What no map owns, of order one."""
        return tuple(edit for edit in tamed(self.model, self.start.context.stats) if edit.tensor in self._editable)

    def left_over(self) -> list[Finding]:
        return [each for each in self.subjects if place(each) not in self.confirmed]

    def suspects(self, finding: Finding) -> list[Layer]:
        """The layers that a symptom may come from: those before it, and those behind it too where gradients show it."""
        here = finding.layer
        if here is None or self.is_overflow(finding):  # mended in one place, it comes up in the next
            return list(self.model.layers)
        back = finding.category == "gradient"
        return [
            each
            for each in self.model.layers
            if each.name == here
            or self.model.is_upstream(each.name, here)
            or (back and self.model.is_upstream(here, each.name))
        ]

    # -- 4 ---------------------------------------------------------------------------------------------------------

    def attribute(self) -> None:
        """Which cause brings which other headline about."""
        order = {layer.name: position for position, layer in enumerate(self.model.layers)}
        causes = [cause for cause in self.causes if place(cause) in self.confirmed]
        # gradients last: they suffer from whatever happens to the signal
        causes.sort(
            key=lambda f: (self.is_symptom(f), f.category == "gradient", -f.severity, order.get(f.layer or "", -1))
        )
        groups = self._groups(self._gathered(causes))
        tested: set[Place] = set()
        for number, group in enumerate(groups):
            heads = [cause for cause in group if place(cause) not in self.cause_of]
            here = {place(cause) for cause in heads}
            rest = [each for each in self._heads() if place(each) not in tested | here and self.depends(each)]
            tested |= here
            if not heads or not rest or self.left <= 0:
                continue
            if number < len(groups) - 1:
                after = self.attempt(heads)
                tested -= {place(each) for each in heads if not self.is_cured(each, after)}
                rest = [each for each in rest if self.is_cured(each, after)]
                self._part_of_another(heads, causes)
            chain = self.chain(heads[0])
            self.cause_of |= {place(each): heads[0] for each in rest if place(each) not in chain}

    def _part_of_another(self, heads: Sequence[Finding], causes: Sequence[Finding]) -> None:
        """One layer of many that only together do harm."""
        known = self.fixes.keys() | self.cause_of.keys() | self.revealed.keys()
        wholes = [each for each in causes if place(each) not in known]
        for head in (each for each in heads if each.category == "scale"):
            own = {edit.tensor for edit in self.edits(head)}
            whole = next((each for each in wholes if own < {edit.tensor for edit in self.edits(each)}), None)
            if whole is not None and whole.severity >= head.severity and place(head) not in self.chain(whole):
                self.cause_of[place(head)] = whole

    def _gathered(self, causes: Sequence[Finding]) -> list[Finding]:
        """``causes`` without those that say layer by layer what a symptom with a fix for all of them says at once."""
        kept = list(causes)
        for whole in self.subjects:
            covered = {edit.tensor for edit in self.edits(whole)}
            off = [f for f in kept if f.category == "scale" and f is not whole]
            single = [f for f in off if f.tensor in covered]
            if len(single) > MANY and self._misses(whole, off, covered):
                continue  # mended by one that it leaves out, it would take the others along
            if len(single) > MANY and self.is_symptom(whole) and place(whole) in self.verified - self.fixes.keys():
                self.cause_of |= {place(each): whole for each in single}
                kept = [*(each for each in kept if each not in single and each is not whole), whole]
        self.causes = [*self.causes, *(each for each in kept if each not in self.causes)]
        return kept

    def _misses(self, whole: Finding, off: Sequence[Finding], covered: Collection[str]) -> bool:
        """Whether a layer that it may come from is off in scale too, and its fix leaves it as it is."""
        near = {layer.name for layer in self.suspects(whole)}
        return any(each.tensor not in covered and each.layer in near for each in off)

    def _groups(self, causes: Sequence[Finding]) -> list[list[Finding]]:
        if len(causes) <= SINGLES:
            return [[cause] for cause in causes]
        rules = dict.fromkeys(cause.rule for cause in causes)
        return [[cause for cause in causes if cause.rule == rule] for rule in rules]

    def _heads(self) -> list[Finding]:
        """What was cured and has no cause yet."""
        causes = {place(cause) for cause in self.causes}
        return [
            each
            for each in self.subjects
            if place(each) in self.confirmed
            and place(each) not in self.cause_of
            and (each.caused_by is None or place(each) in causes)
        ]

    def chain(self, finding: Finding) -> dict[Place, Finding]:
        """It and what explains it, over as many steps as it takes; never a circle."""
        found = {place(finding): finding}
        while (cause := self.cause_of.get(place(finding))) is not None and place(cause) not in found:
            found[place(cause)] = finding = cause
        return found
