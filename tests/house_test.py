"""The house as CONTRIBUTING.md describes it: layers, no cycles, small files and functions, shapes where arrays are."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lpi_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
# Names under which commands are started that have moved up: nothing imports them.
DOORS = {"lpi_jax.data.check"}
# The package's face loads what it offers when that is asked for.
FACE = "lpi_jax"
LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS, MEDIAN_FILE = 450, 60, 7, 150
# Parts that must not know one problem or one method.
GENERAL = ("run", "train", "workdir", "parallel", "experiment", "report", "types.py", "metrics.py", "problems/base.py")
OF_RETRIEVAL = re.compile(
    r"(?<!fig)caption|recall|tower|image_to_text|text_to_image|R@\d|\blpi\b|zero_shot\b|\bl2p\b|\blora\b|\bewc\b", re.I
)


def layers() -> list[list[str]]:
    """The layers of CONTRIBUTING.md, from the top: names of folders and modules of the package."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = re.search(r"```layers\n(.*?)```", text, re.S)[1]
    return [[name.strip() for name in line.split(",")] for line in listed.strip().splitlines()]


def module(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(file): file for file in FILES}


def imported(file: Path) -> set[str]:
    """Every module of the package that a file imports, also inside functions and for types alone."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in MODULES else node.module)
    return {name for name in names if name in MODULES}


GRAPH = {name: imported(file) - {name} for name, file in MODULES.items() if name not in DOORS | {FACE}}


def layer_of(name: str) -> int:
    part = name.split(".")[1]
    return next(number for number, names in enumerate(layers()) if part in names)


def functions(tree: ast.AST):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_every_part_of_the_package_is_in_one_layer():
    listed = [name for names in layers() for name in names]
    parts = {name.split(".")[1] for name in MODULES if "." in name}
    assert sorted(listed) == sorted(parts)


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_imports_point_down(name):
    up = {other for other in GRAPH[name] if "." in other and layer_of(other) < layer_of(name)}
    assert not up
    beside = {other for other in GRAPH[name] if "." in other and layer_of(other) == layer_of(name)}
    assert {other.split(".")[1] for other in beside} <= {name.split(".")[1]}


def test_no_import_goes_round_in_a_circle():
    seen: dict[str, bool] = {}  # module -> whether it is finished

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert seen.get(name) is not False, " -> ".join((*path, name))
        if name in seen:
            return
        seen[name] = False
        for other in GRAPH.get(name, ()):
            visit(other, (*path, name))
        seen[name] = True

    for name in GRAPH:
        visit(name, ())


def test_files_are_short_and_functions_too():
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert [file.name for file, lines in lengths.items() if lines > LONGEST_FILE] == []
    assert sorted(lengths.values())[len(lengths) // 2] <= MEDIAN_FILE
    long = [
        f"{file.name}: {function.name}"
        for file in FILES
        for function in functions(ast.parse(file.read_text(encoding="utf-8")))
        if function.end_lineno - function.lineno >= LONGEST_FUNCTION
    ]
    assert long == []


def parameters(function: ast.FunctionDef) -> list[str]:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]


def test_public_functions_have_few_parameters():
    many = [
        f"{file.name}: {function.name}"
        for file in FILES
        for function in functions(ast.parse(file.read_text(encoding="utf-8")))
        if not re.match("_(?!_init__)", function.name) and len(parameters(function)) > MOST_PARAMETERS
    ]
    assert many == []


def test_every_public_function_on_arrays_says_their_shapes():
    array = re.compile(r"\b(np\.ndarray|Array)\b")
    silent = []
    for file in FILES:
        body = ast.parse(file.read_text(encoding="utf-8")).body
        inside = [node for part in body if isinstance(part, ast.ClassDef) for node in part.body]
        for function in functions(ast.Module([*body, *inside], [])):
            hints = [a.annotation for a in [*function.args.args, *function.args.kwonlyargs]] + [function.returns]
            written = [ast.unparse(hint) for hint in hints if hint is not None]
            on_arrays = any(array.search(hint) and "Callable" not in hint for hint in written)
            if not on_arrays or function.name.startswith("_") or function not in [*body, *inside]:
                continue
            if not re.search(r"\[[^\]]*\]|scalar", ast.get_docstring(function) or ""):
                silent.append(f"{file.name}: {function.name}")
    assert silent == []


@pytest.mark.parametrize("part", GENERAL)
def test_what_is_general_names_no_problem_and_no_method(part):
    place = PACKAGE / part
    lines = [
        f"{file.name}, line {number}: {line.strip()}"
        for file in ([place] if place.is_file() else sorted(place.rglob("*.py")))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if OF_RETRIEVAL.search(line)
    ]
    assert lines == []
