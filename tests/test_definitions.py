"""Everything is defined once: no function and no table stands in two modules of the package."""

import ast
import collections
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "hvq_jax"


def without_docstring(function):
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return "\n".join(map(ast.unparse, body))


def definitions(module):
    """Yield the name and the source of each function and constant at the top of a module, but for plain numbers."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, without_docstring(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not isinstance(node.value, ast.Constant | ast.BinOp):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            yield ast.unparse(target), ast.unparse(node.value)


def test_no_function_and_no_table_is_defined_twice():
    places = collections.defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for definition in definitions(ast.parse(path.read_text())):
            places[definition].append(str(path.relative_to(PACKAGE)))
    assert len(places) > 500
    idioms = {"T", "Params"}  # names of types
    assert not {name: found for (name, _), found in places.items() if len(found) > 1 and name not in idioms}
