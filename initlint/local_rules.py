"""Rule files of a project's own, which no distribution announces: a folder of them, or single files.

Importing them runs them; whether that is wanted, ``configuration`` decides.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module, invalidate_caches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from .errors import UsageError
from .foreign import described
from .target_names import shown

_PREFIX = "initlint_local_rules_"


def modules(path: Path, wanted: Sequence[Path]) -> Iterator[ModuleType]:
    """The modules of the ``wanted`` rule files, which lie in the folder ``path`` or are ``path`` itself.

    A folder becomes a package under a name of its own, so that its files can import each other relatively and none
    hides a module of the same name. Raises UsageError, which names the file, for one that fails to import.
    """
    folder = _folder(path)
    package = _package(folder)
    for file in wanted:
        parts = file.relative_to(folder).with_suffix("").parts
        yield _imported(".".join([package, *(part for part in parts if part != "__init__")]), file)


def shared_out(paths: Iterable[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Each of ``paths`` with those of its files that no other one gave: what is imported twice defines its rules twice.

    Outer folders come first, since their files may import those of inner ones.
    """
    given: set[str] = set()
    for path in sorted(paths, key=lambda path: len(Path(os.path.realpath(path)).parts)):
        real = {file: os.path.realpath(file) for file in files(path)}
        fresh = [file for file in real if real[file] not in given]
        if fresh or not real:
            yield path, fresh
        given.update(real.values())


def files(path: Path) -> list[Path]:
    """The rule files that ``path`` means, in the order in which they are imported."""
    if _folder(path) != path:
        return [path]
    init = path / "__init__.py"
    return sorted(_rule_files(path), key=lambda file: (file != init, file))


def _folder(path: Path) -> Path:
    """Itself, or where the single file lies."""
    return path.parent if path.suffix == ".py" and path.is_file() else path


def file_of(module: str) -> str | None:
    """The file of one of these modules, for messages; None for any other."""
    if not module.startswith(_PREFIX):
        return None
    return shown(Path(str(getattr(sys.modules.get(module), "__file__", None) or module)))


def _rule_files(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*.py"):
        inner = file.relative_to(folder).parts
        is_test = file.name.startswith("test_") or file.stem in ("conftest", "__main__")
        if not is_test and not any(part.startswith(".") or part == "__pycache__" for part in inner):
            yield file


def _package(folder: Path) -> str:
    """The name under which the files of ``folder`` are imported."""
    name = f"{_PREFIX}{zlib.crc32(os.fsencode(os.path.realpath(folder))):08x}"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    invalidate_caches()  # a file may be newer than the listing of its folder
    return name


def _imported(name: str, file: Path) -> ModuleType:
    try:
        return import_module(name) if file.stem != "__init__" or "." in name else _run(name, file)
    except (Exception, SystemExit) as fault:  # somebody's code may raise anything; all of it stops the run
        raise UsageError(f"the rule file {shown(file)} cannot be imported: {described(fault)}; repair it") from fault


def _run(name: str, file: Path) -> ModuleType:
    """The folder's own __init__.py, once, in place of the empty package that stands for it."""
    if getattr(sys.modules[name], "__file__", None):
        return sys.modules[name]
    spec = spec_from_file_location(name, file, submodule_search_locations=[str(file.parent)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    empty = sys.modules[name]
    sys.modules[name] = package = module_from_spec(spec)
    try:
        spec.loader.exec_module(package)
    except BaseException:
        sys.modules[name] = empty
        raise
    return package
