"""Fully qualified origins of the names that a module uses, followed through aliases and this project's re-exports."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LOADERS = ("importlib.import_module", "builtins.__import__")


@dataclass(frozen=True)
class Use:
    """``origin``: dotted name such as "torch.load" or "utils.files.atomic.remove"; ``call``: the call of it, if any."""

    origin: str
    line: int
    call: ast.Call | None = None


class Project:
    """Modules by dotted name. The sources are parsed, never imported."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._trees = {name: ast.parse(text) for name, text in sources.items()}
        self._bindings = {name: _bindings(tree) for name, tree in self._trees.items()}
        self._functions = {
            f"{name}.{node.name}": (name, node)
            for name, tree in self._trees.items()
            for node in tree.body
            if isinstance(node, ast.FunctionDef)
        }

    @classmethod
    def read(cls, root: Path, paths: list[Path]) -> Project:
        return cls({module_name(path.relative_to(root)): path.read_text(encoding="utf-8") for path in paths})

    def constant(self, origin: str) -> object:
        """The value of a module's constant, e.g. of "utils.results.store.TRACK_NAME"; None if it has no plain one."""
        module, _, name = origin.rpartition(".")
        for node in self._trees[module].body if module in self._trees else ():
            if isinstance(node, ast.Assign):
                for target, value in _assigned(node):
                    if target == name and isinstance(value, ast.Constant):
                        return value.value
        return None

    def texts(self, module: str) -> set[str]:
        """The string constants of a module, docstrings and the constant parts of f-strings among them."""
        nodes = ast.walk(self._trees[module])
        return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}

    def uses(self, module: str) -> Iterator[Use]:
        """Every name that the module imports or looks up at run time, anywhere in it; annotations are left out.

        A function of this project that is annotated to return a library's object counts as a use of that object.
        """
        for use in self._direct_uses(module):
            yield use
            if use.origin in self._functions:
                owner, function = self._functions[use.origin]
                for name in _names_in(function.returns):
                    yield from (Use(origin, use.line) for origin in self._origins(owner, name))

    def _direct_uses(self, module: str) -> Iterator[Use]:
        for node, call in _run_time_nodes(self._trees[module]):
            if isinstance(node, ast.Import):
                yield from (Use(alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield from (Use(o, node.lineno) for o in self._follow(f"{node.module}.{alias.name}"))
            else:
                for origin in self._origins(module, node):
                    yield Use(origin, node.lineno, call)
                    if origin in LOADERS and call and call.args and isinstance(call.args[0], ast.Constant):
                        yield Use(str(call.args[0].value), node.lineno)

    def _origins(self, module: str, node: ast.expr) -> set[str]:
        dotted = _dotted(node)
        if dotted is None:
            return set()
        head, _, rest = dotted.partition(".")
        found = self._bindings[module].get(head, {f"builtins.{head}"} if head == "__import__" else set())
        return {origin for name in found for origin in self._follow(f"{name}.{rest}" if rest else name)}

    def _follow(self, dotted: str, seen: frozenset[str] = frozenset()) -> set[str]:
        """What a dotted name means after all modules of this project that only hand it on."""
        parts = dotted.split(".")
        for n in range(len(parts) - 1, 0, -1):
            module, name, rest = ".".join(parts[:n]), parts[n], parts[n + 1 :]
            if dotted in self._trees or dotted in seen or module not in self._trees:
                continue
            bound = self._bindings[module].get(name, set())
            if not bound:
                break
            return {o for target in bound for o in self._follow(".".join([target, *rest]), seen | {dotted})}
        return {dotted}


def module_name(path: Path) -> str:
    """Dotted name of a file given relative to the root."""
    return path.as_posix().removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _bindings(tree: ast.Module) -> dict[str, set[str]]:
    """Names bound by imports and by assignments of imported things, in whatever scope: each to its dotted targets."""
    bound: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                target = alias.name if alias.asname else alias.name.partition(".")[0]
                bound.setdefault(alias.asname or target, set()).add(target)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                bound.setdefault(alias.asname or alias.name, set()).add(f"{node.module}.{alias.name}")
    for _ in range(3):  # an alias of an alias of an alias
        for node in ast.walk(tree):
            for target, value in _assigned(node) if isinstance(node, ast.Assign) else ():
                head, _, rest = (_dotted(value) or "").partition(".")
                targets = {f"{origin}.{rest}" if rest else origin for origin in bound.get(head, ())}
                if targets and target != head:
                    bound.setdefault(target, set()).update(targets)
    return bound


def _assigned(node: ast.Assign) -> Iterator[tuple[str, ast.expr]]:
    for target in node.targets:
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
        yield from ((name.id, value) for name, value in pairs if isinstance(name, ast.Name))


def _dotted(node: ast.AST | None) -> str | None:
    """ "a.b.c" of names and attributes, also of getattr(a.b, "c"); None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner, name = _dotted(node.value), node.attr
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
        stated = node.args[1] if len(node.args) > 1 else None
        owner = _dotted(node.args[0]) if node.args else None
        name = stated.value if isinstance(stated, ast.Constant) else None
    else:
        return None
    return f"{owner}.{name}" if owner and name else None


def _run_time_nodes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.Call | None]]:
    """Imports, and names and attributes with the call that they are the function of; no annotations."""
    if isinstance(node, ast.If) and _dotted(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        children: list[ast.AST] = list(node.orelse)
    else:
        skipped = [getattr(node, name, None) for name in ("annotation", "returns")]
        children = [child for child in ast.iter_child_nodes(node) if child not in skipped]
    for child in children:
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, None
        elif _dotted(child):
            yield child, node if isinstance(node, ast.Call) and node.func is child else None
        yield from _run_time_nodes(child)


def _names_in(node: ast.AST | None) -> Iterator[ast.AST]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    if node is not None:
        yield from (child for child in ast.walk(node) if _dotted(child))
