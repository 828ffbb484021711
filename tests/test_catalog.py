"""The catalog finds every rule of every pack, and never stays silent about one that it cannot use."""

from __future__ import annotations

from pathlib import Path

import pytest

from initlint import catalog
from initlint.configuration import merge, origin
from initlint.errors import UsageError
from initlint.plugin import Rule
from initlint.settings import Allow, Settings

RULE = '''
"""{summary}"""
from __future__ import annotations
from collections.abc import Iterator
from dataclasses import dataclass
from initlint.plugin import Context, Suspicion, rule

@dataclass(frozen=True)
class Options:
    limit: float = 0.5
    units: int = 3
    strict: bool = True
    scheme: str = "he_normal"
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError("limit has to be at least 0")

@rule(category="{category}", message="seen", options=Options)
def {function}(context: Context, options: Options) -> Iterator[Suspicion]:
    yield from ()
'''


class Packs:
    """Rule packs on disk that can be imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, module: str, text: str) -> None:
        path = self.folder.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)

    def rule(self, module: str, function: str = "", category: str = "weights") -> None:
        name = function or module.rpartition(".")[2]
        self.write(module, RULE.format(summary=f"What {name} sees.", function=name, category=category))


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packs:
    monkeypatch.syspath_prepend(tmp_path)
    return Packs(tmp_path)


@pytest.fixture
def rules(packs: Packs) -> tuple[Rule, ...]:
    """zeros and spread of category weights, loud of category signal."""
    packs.rule("chosen_pack.zeros")
    packs.rule("chosen_pack.spread")
    packs.rule("chosen_pack.loud", category="signal")
    return catalog.load_rules({"mine": "chosen_pack"})


def names(rules: tuple[Rule, ...]) -> list[str]:
    return [rule.name for rule in rules]


def test_our_own_pack_comes_through_the_same_door_as_others() -> None:
    assert catalog.installed_packs()["core"] == catalog.CORE


def test_rules_are_found_in_every_module_of_a_pack_also_in_nested_packages(packs: Packs) -> None:
    packs.rule("deep_pack.first_rule")
    packs.rule("deep_pack.inner.second_rule")
    assert names(catalog.load_rules({"deep": "deep_pack"})) == ["first-rule", "second-rule"]


def test_a_pack_may_be_a_single_module(packs: Packs) -> None:
    packs.rule("lonely.one_rule")
    assert names(catalog.load_rules({"lonely": "lonely.one_rule"})) == ["one-rule"]


def test_a_rule_that_another_module_of_the_pack_imports_is_still_one_rule(packs: Packs) -> None:
    packs.rule("sharing_pack.shared")
    packs.write("sharing_pack.user", "from .shared import shared")
    assert names(catalog.load_rules({"sharing": "sharing_pack"})) == ["shared"]


def test_a_module_that_is_run_as_a_program_is_not_imported(packs: Packs) -> None:
    packs.rule("program_pack.good")
    packs.write("program_pack.__main__", "raise SystemExit(0)")
    assert names(catalog.load_rules({"program": "program_pack"})) == ["good"]


def test_rules_come_by_category_and_name(rules: tuple[Rule, ...]) -> None:
    assert names(rules) == ["loud", "spread", "zeros"]


@pytest.mark.parametrize("text", ["import no_such_module", "1 / 0", "raise SystemExit(0)", "def broken("])
def test_a_pack_that_fails_to_load_stops_the_run(packs: Packs, text: str, request: pytest.FixtureRequest) -> None:
    pack = f"broken_{abs(hash(request.node.name))}"
    packs.rule(f"{pack}.good")
    packs.write(f"{pack}.inner.bad", text)
    with pytest.raises(UsageError, match=rf'rule pack "mine" fails to load: importing {pack}.inner.bad'):
        catalog.load_rules({"mine": pack})


def test_a_broken_package_inside_a_pack_stops_the_run(packs: Packs) -> None:
    packs.rule("half_pack.good")
    packs.rule("half_pack.inner.other")
    (packs.folder / "half_pack" / "inner" / "__init__.py").write_text("1 / 0")
    with pytest.raises(UsageError, match=r"importing half_pack.inner raised ZeroDivisionError"):
        catalog.load_rules({"half": "half_pack"})


def test_a_pack_that_does_not_exist_stops_the_run() -> None:
    with pytest.raises(UsageError, match='rule pack "gone" fails to load'):
        catalog.load_rules({"gone": "no_such_pack"})


def test_a_pack_without_rules_stops_the_run(packs: Packs) -> None:
    packs.write("hollow_pack.nothing", "")
    with pytest.raises(UsageError, match="holds no rule"):
        catalog.load_rules({"hollow": "hollow_pack"})


def test_no_pack_at_all_stops_the_run() -> None:
    with pytest.raises(UsageError, match="no rule pack is installed"):
        catalog.load_rules({})


def test_two_rules_of_one_name_stop_the_run_and_both_places_are_named(packs: Packs) -> None:
    packs.rule("pack_one.same")
    packs.rule("pack_two.same")
    with pytest.raises(UsageError, match=r'"same": in pack_one.same and in pack_two.same'):
        catalog.load_rules({"one": "pack_one", "two": "pack_two"})


def test_a_core_rule_is_named_like_its_file(packs: Packs, monkeypatch: pytest.MonkeyPatch) -> None:
    packs.rule("core_pack.file_name", function="other_name")
    assert names(catalog.load_rules({"others": "core_pack"})) == ["other-name"]
    monkeypatch.setattr(catalog, "CORE", "core_pack")
    with pytest.raises(UsageError, match=r'core_pack.file_name defines the rule "other-name"'):
        catalog.load_rules({"core": "core_pack"})


def test_a_rule_and_a_category_do_not_share_a_name(packs: Packs) -> None:
    packs.rule("mixed_pack.zeros")
    packs.rule("mixed_pack.other", category="zeros")
    with pytest.raises(UsageError, match='"zeros" is both a rule'):
        catalog.load_rules({"mixed": "mixed_pack"})


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        (Settings(), ["loud", "spread", "zeros"]),
        (Settings(select=("zeros",)), ["zeros"]),
        (Settings(select=("weights",)), ["spread", "zeros"]),
        (Settings(select=("weights", "loud")), ["loud", "spread", "zeros"]),
        (Settings(select=("zeros",), extend_select=("signal",)), ["loud", "zeros"]),
        (Settings(ignore=("weights",)), ["loud"]),
        (Settings(ignore=("weights",), extend_select=("zeros",)), ["loud", "zeros"]),
        (Settings(select=("weights",), ignore=("zeros",)), ["spread"]),
        (Settings(select=("zeros", "loud"), ignore=("zeros",)), ["loud"]),
    ],
)
def test_names_count_for_more_than_categories_and_ignore_for_more_than_select(
    rules: tuple[Rule, ...], settings: Settings, chosen: list[str]
) -> None:
    assert names(catalog.choose(rules, settings)) == chosen


@pytest.mark.parametrize("key", ["select", "extend-select", "ignore"])
def test_an_unknown_rule_is_an_error_that_names_its_place_and_the_nearest_one(
    rules: tuple[Rule, ...], key: str
) -> None:
    settings = merge([origin("pyproject.toml", {key: ["zeroes"]})])
    with pytest.raises(UsageError, match=rf'pyproject.toml: {key}: .*"zeroes"; did you mean "zeros"\?'):
        catalog.choose(rules, settings)


def test_no_rule_left_to_run_is_an_error(rules: tuple[Rule, ...]) -> None:
    with pytest.raises(UsageError, match="no rule is left to run"):
        catalog.choose(rules, Settings(ignore=("weights", "signal")))


def test_options_are_defaults_unless_they_are_set(rules: tuple[Rule, ...]) -> None:
    given = {"zeros": {"limit": 2, "names": ["a"], "units": 4}}
    options = catalog.options_of(rules, Settings(options=given))
    assert options.keys() == {"loud", "spread", "zeros"}
    assert (options["zeros"].limit, options["zeros"].units, options["zeros"].names) == (2.0, 4, ("a",))  # type: ignore[attr-defined]
    assert isinstance(options["zeros"].limit, float)  # type: ignore[attr-defined]
    assert options["loud"].limit == 0.5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"zeroes": {}}, r'rules: there is no rule "zeroes"; did you mean "zeros"\?'),
        ({"zeros": {"limt": 1.0}}, r'rules.zeros: unknown option "limt"; did you mean "limit"\?'),
        ({"zeros": {"limit": "high"}}, r"rules.zeros.limit has to be a number, not 'high'"),
        ({"zeros": {"limit": True}}, r"rules.zeros.limit has to be a number, not True"),
        ({"zeros": {"units": 1.5}}, r"rules.zeros.units has to be a whole number, not 1.5"),
        ({"zeros": {"strict": 1}}, r"rules.zeros.strict has to be true or false, not 1"),
        ({"zeros": {"names": "a"}}, r"rules.zeros.names has to be .*, not 'a'"),
        ({"zeros": {"limit": -1.0}}, r"rules.zeros: limit has to be at least 0"),
    ],
)
def test_a_wrong_option_is_an_error(rules: tuple[Rule, ...], given: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        catalog.options_of(rules, Settings(options=given))


def test_an_allowance_of_a_category_says_which_rules_it_could_be_for(rules: tuple[Rule, ...]) -> None:
    category = rules[0].category
    members = ", ".join(rule.name for rule in rules if rule.category == category)
    with pytest.raises(UsageError, match=f'"{category}" is a category, and an exception is for one rule.*: {members}'):
        catalog.options_of(rules, Settings(allow=(Allow(category, "*", "because"),)))


def test_an_allowance_of_an_unknown_rule_is_an_error(rules: tuple[Rule, ...]) -> None:
    with pytest.raises(UsageError, match=r'there is no rule "zeroes"; did you mean "zeros"\?'):
        catalog.options_of(rules, Settings(allow=(Allow("zeroes", "*", "because"),)))


def test_a_rule_is_found_by_its_name_or_the_nearest_is_suggested(rules: tuple[Rule, ...]) -> None:
    assert catalog.find_rule(rules, "zeros").summary == "What zeros sees."
    with pytest.raises(UsageError, match=r'did you mean "spread"\?'):
        catalog.find_rule(rules, "spred")
