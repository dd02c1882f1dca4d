"""Every public function of the pure core has an example in its docstring, and all examples are true."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hvq_jax"
CORE = [PACKAGE / f"{name}.py" for name in ("latents", "losses", "metrics")]
CORE += [path for name in ("quantizers", "priors") for path in sorted((PACKAGE / name).glob("*.py"))]
WITH_EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]


def module_name(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def public_functions(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield pytest.param(node, id=f"{module_name(path)}.{node.name}")


@pytest.mark.parametrize("function", [function for path in CORE for function in public_functions(path)])
def test_every_public_function_of_the_core_has_an_example_that_calls_it(function):
    examples = doctest.DocTestParser().get_examples(ast.get_docstring(function) or "")
    assert any(re.search(rf"\b{function.name}\(", example.source) for example in examples)


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_name)
def test_examples_give_what_they_say(path):
    results = doctest.testmod(importlib.import_module(module_name(path)))  # prints those that do not
    assert results.failed == 0
    assert results.attempted == path.read_text().count(">>> "), "some examples are not found"
