"""How readable source trees are, in figures: python scripts/code_figures.py [PACKAGE_FOLDER ...]

Prints one Markdown table with a column for each package folder; without arguments that is src/integrand. Nothing is imported but for the
last row, which calls ``ig.explain`` of the tree in a process of its own and lists nothing for packages without such a function.

What is counted:

* code lines: lines that are neither blank, comment nor docstring;
* class names used twice: names that several classes of the package share, underscores in front aside;
* pronoun-like assignments: local names such as ``found``, ``made``, ``one`` that do not say what they hold, as a part of all local names
  that are assigned;
* ``Any`` parameters: annotated parameters whose annotation is ``Any``, ``*args`` and ``**kwargs`` aside;
* probes: calls of ``getattr`` and ``hasattr``; "of parts" are those whose literal name is an attribute that some class of the same package
  defines;
* circles: groups of modules that import each other, lazy imports and those for type checkers included; a name imported from a package
  counts as an import of the module that defines it;
* files entered: source files of the package whose functions a plain ``ig.explain(model, x, target=0, rule=…)`` enters.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Words that point at a thing, or say only that something happened to it.
PRONOUN_LIKE = (
    "found made one own other others it this that these those such each every some both which what there here theirs "
    "mine thing things way ways got said told asked held kept done seen met put given taken gone whole anew"
)
PRONOUNS = frozenset(PRONOUN_LIKE.split())
WIDE = 100
LONG = 60

TRACED = """
import os, sys, torch
import integrand as ig
root = os.path.dirname(ig.__file__)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).eval()
x = torch.randn(4, 4)
ig.explain(model, x, target=0, method="integrated", rule=ig.rules.GaussLegendre(8))  # what is imported lazily is imported
files, functions, depth, deepest = set(), [], 0, 0
def watch(frame, event, argument):
    global depth, deepest
    code = frame.f_code
    if not code.co_filename.startswith(root) or code.co_name.startswith("<"):
        return
    if event == "call":
        depth += 1
        deepest = max(deepest, depth)
        files.add(code.co_filename)
        functions.append((os.path.relpath(code.co_filename, root), code.co_qualname, depth))
    elif event == "return":
        depth -= 1
sys.setprofile(watch)
ig.explain(model, x, target=0, method="integrated", rule=ig.rules.GaussLegendre(8))
sys.setprofile(None)
print(len(files), len(functions), deepest)
if "--walk" in sys.argv:
    seen = set()
    for file, name, level in functions:
        if (file, name) not in seen:
            seen.add((file, name))
            print("  " * (level - 1) + f"{file[:-3].replace(os.sep, '.')}: {name}")
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file: its module's dotted name, text and syntax tree."""

    module: str
    is_package: bool
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.module if self.is_package else self.module.rpartition(".")[0]


def sources(folder: Path) -> list[Source]:
    """Every Python file below a package folder."""
    result = []
    for file in sorted(folder.rglob("*.py")):
        parts = [folder.name, *file.relative_to(folder).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        text = file.read_text(encoding="utf-8")
        result.append(
            Source(".".join(parts[:-1] if is_package else parts), is_package, text, ast.parse(text))
        )
    return result


# --- lines ------------------------------------------------------------------------------------------------------------


def docstring_lines(tree: ast.Module) -> set[int]:
    """The numbers of the lines that docstrings fill."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # A string on its own documents what stands above it: an attribute, too.
            for statement in node.body:
                if (
                    isinstance(statement, ast.Expr)
                    and isinstance(statement.value, ast.Constant)
                    and isinstance(statement.value.value, str)
                ):
                    lines.update(
                        range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
                    )
    return lines


def code_lines(source: Source) -> set[int]:
    """The numbers of the lines that hold code."""
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    rows = iter(source.text.splitlines(keepends=True))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(lambda: next(rows, "")):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstring_lines(source.tree)


def comment_lines(source: Source) -> int:
    return sum(line.lstrip().startswith("#") for line in source.text.splitlines())


# --- functions and names ----------------------------------------------------------------------------------------------


def functions(tree: ast.AST) -> Iterator[Function]:
    return (
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def is_command(function: Function) -> bool:
    """Whether typer reads its signature: a decorator such as ``@app.command(…)``."""
    names = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any(".command(" in name or ".callback(" in name for name in names)


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions and classes inside it."""
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))


def assigned_names(function: Function) -> Iterator[str]:
    return (
        node.id
        for node in own_nodes(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )


BRANCHES = (
    ast.If,
    ast.For,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.comprehension,
    ast.Assert,
    ast.match_case,
)


def complexity(function: Function) -> int:
    """McCabe's number: one more than the branches."""
    nodes = list(own_nodes(function))
    operators = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    return 1 + operators + sum(isinstance(node, BRANCHES) for node in nodes)


def parameters(function: Function) -> list[ast.arg]:
    arguments = function.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def says_any(annotation: ast.expr) -> bool:
    return ast.unparse(annotation) in ("Any", "typing.Any", "Any | None")


def class_names(files: Iterable[Source]) -> Counter[str]:
    return Counter(
        node.name.lstrip("_")
        for source in files
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
    )


# --- probes -----------------------------------------------------------------------------------------------------------


def attributes(files: Iterable[Source]) -> set[str]:
    """Names that classes of the package give their instances: methods, properties, fields and class variables."""
    names: set[str] = set()
    for source in files:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                for statement in node.body:
                    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                        names.add(statement.name)
                    elif isinstance(statement, ast.AnnAssign) and isinstance(
                        statement.target, ast.Name
                    ):
                        names.add(statement.target.id)
                    elif isinstance(statement, ast.Assign):
                        names.update(
                            target.id
                            for target in statement.targets
                            if isinstance(target, ast.Name)
                        )
    return {name for name in names if not name.startswith("__")}


def probes(files: Iterable[Source]) -> list[str | None]:
    """The literal names that ``getattr`` and ``hasattr`` are called with, None for a computed one."""
    names: list[str | None] = []
    for source in files:
        for node in ast.walk(source.tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
            ):
                name = node.args[1] if len(node.args) > 1 else None
                names.append(
                    name.value
                    if isinstance(name, ast.Constant) and isinstance(name.value, str)
                    else None
                )
    return names


# --- imports ----------------------------------------------------------------------------------------------------------


def imported(source: Source) -> Iterator[tuple[str, str | None, str]]:
    """(module, name or None, what it is called here), for every import statement at any depth."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            base = (
                source.package.split(".")[: len(source.package.split(".")) - (node.level - 1)]
                if node.level
                else []
            )
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield module, alias.name, alias.asname or alias.name


def import_graph(files: list[Source]) -> dict[str, set[str]]:
    """module → the modules that define what it imports."""
    modules = {source.module: source for source in files}
    exports = {
        source.module: {here: (module, name) for module, name, here in imported(source)}
        for source in files
        if source.is_package
    }

    def defining(module: str, name: str | None, depth: int = 0) -> str | None:
        if name is None:
            return module if module in modules else None
        if f"{module}.{name}" in modules and name not in exports.get(module, {}):
            return f"{module}.{name}"
        origin = exports.get(module, {}).get(name)
        if origin is not None and origin != (module, name) and depth < 9:
            return defining(*origin, depth + 1) or module
        return module if module in modules else None

    graph: dict[str, set[str]] = {}
    for source in files:
        targets = {defining(module, name) for module, name, _ in imported(source)}
        graph[source.module] = {
            target for target in targets if target is not None and target != source.module
        }
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    result: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for other in sorted(graph.get(module, ())):
            if other not in number:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], number[other])
        if lowest[module] == number[module]:
            at = stack.index(module)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                result.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for module in sorted(graph):
        if module not in number:
            visit(module)
    return result


# --- the table --------------------------------------------------------------------------------------------------------


def quantile(values: list[int], part: float) -> int:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} % of {whole:,}"


def traced(folder: Path, *options: str) -> str:
    """What the plain call enters, as its process prints it; empty for packages without ``ig.explain``."""
    if not (folder / "explain.py").exists():
        return ""
    command = [sys.executable, "-c", TRACED, *options]
    environment = {
        "PYTHONPATH": str(folder.parent.resolve()),
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def figures(folder: Path) -> dict[str, str]:
    """What is measured → how it is printed."""
    files = sources(folder)
    lines = [line for source in files for line in source.text.splitlines()]
    code = {source.module: code_lines(source) for source in files}
    every = [(source, function) for source in files for function in functions(source.tree)]
    lengths = {
        (source.module, function.name, function.lineno): len(
            code[source.module]
            & set(range(function.lineno, (function.end_lineno or function.lineno) + 1))
        )
        for source, function in every
    }
    sizes = sorted(lengths.values())
    overlong = [
        f"{function.name} {length}"
        for (source, function), length in zip(every, lengths.values(), strict=True)
        if length > LONG and not is_command(function)
    ]
    complexities = [complexity(function) for _, function in every]
    assigned = [name for _, function in every for name in assigned_names(function)]
    annotations = [
        argument.annotation
        for _, function in every
        for argument in parameters(function)
        if argument.annotation is not None
    ]
    twice = sorted(name for name, count in class_names(files).items() if count > 1)
    known, asked_for = attributes(files), probes(files)
    groups = circles(import_graph(files))
    walk = traced(folder).split()
    pronouns = sum(name in PRONOUNS for name in assigned)
    return {
        "files / lines": f"{len(files)} / {len(lines):,}",
        "code / docstring / comment lines": " / ".join(
            f"{count:,}"
            for count in (
                sum(map(len, code.values())),
                sum(len(docstring_lines(source.tree)) for source in files),
                sum(map(comment_lines, files)),
            )
        ),
        "class names used twice": f"{len(twice)}"
        + (f" ({', '.join(twice)})" if 0 < len(twice) <= 4 else ""),
        "pronoun-like assignments": percent(pronouns, len(assigned)),
        "`Any` parameters": percent(sum(map(says_any, annotations)), len(annotations)),
        "`getattr`/`hasattr`: all / of parts": f"{len(asked_for)} / {sum(name in known for name in asked_for)}",
        "import circles": f"{len(groups)}",
        "files / calls / depth of a plain explain": " / ".join(walk[:3]) if walk else "–",
        "function code lines: median / mean / p99 / max": (
            f"{statistics.median(sizes):.0f} / {statistics.mean(sizes):.1f} / {quantile(sizes, 0.99)} / {sizes[-1]}"
        ),
        f"functions over {LONG} code lines": f"{len(overlong)}"
        + (f" ({', '.join(overlong)})" if 0 < len(overlong) <= 4 else ""),
        "complexity: mean / p95 / max": (
            f"{statistics.mean(complexities):.2f} / {quantile(complexities, 0.95)} / {max(complexities)}"
        ),
        f"lines over {WIDE} columns": percent(sum(len(line) > WIDE for line in lines), len(lines)),
    }


def table(columns: dict[str, dict[str, str]]) -> str:
    rows = [["", *columns]]
    rows += [
        [what, *(column[what] for column in columns.values())]
        for what in next(iter(columns.values()))
    ]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


DETAILS: dict[str, Callable[[list[Source]], Iterable[str]]] = {
    "--classes": lambda files: (
        f"{name} × {count}" for name, count in class_names(files).most_common() if count > 1
    ),
    "--circles": lambda files: (" ↔ ".join(group) for group in circles(import_graph(files))),
    "--probes": lambda files: (
        f"{name} × {count}"
        for name, count in Counter(
            name for name in probes(files) if name in attributes(files)
        ).most_common()
    ),
    "--pronouns": lambda files: (
        f"{source.module}: {', '.join(f'{name} × {count}' for name, count in sorted(names.items()))}"
        for source, names in pronouns_by_module(files)
    ),
}


def pronouns_by_module(files: list[Source]) -> Iterator[tuple[Source, Counter[str]]]:
    for source in files:
        names: Counter[str] = Counter()
        for function in functions(source.tree):
            names.update(name for name in assigned_names(function) if name in PRONOUNS)
        if names:
            yield source, names


def main(arguments: list[str]) -> None:
    options = [argument for argument in arguments if argument.startswith("--")]
    folders = [Path(argument) for argument in arguments if not argument.startswith("--")]
    folders = folders or [Path(__file__).parent.parent / "src" / "integrand"]
    if not options:
        named: dict[str, list[Path]] = defaultdict(list)
        for folder in folders:
            named[folder.name].append(folder)
        print(table({str(f) if len(named[f.name]) > 1 else f.name: figures(f) for f in folders}))
    for option in options:
        for folder in folders:
            if option == "--walk":
                print(traced(folder, option))
            elif option in DETAILS:
                print(*DETAILS[option](sources(folder)), sep="\n")
            else:
                raise SystemExit(f"{option} is none of: --walk, {', '.join(DETAILS)}.")


if __name__ == "__main__":
    main(sys.argv[1:])
