"""The site's sources; `make docs` builds it and checks its links."""

import re
from pathlib import Path

import hvq_jax as hvq
from docs.examples import fenced
from docs.hooks import links_of_site, loaded_from_elsewhere

REFERENCE = "\n".join(path.read_text() for path in sorted(Path("docs/reference").glob("*.md")))


def test_each_public_name_is_on_a_page_of_the_reference():
    shown = set(re.findall(r"^::: hvq_jax\.([\w.]+)$", REFERENCE, re.MULTILINE))
    missing = {name for name, home in hvq._HOMES.items() if not {f"{home}.{name}", home} & shown}
    missing |= {name for name in hvq._MODULES if not any(entry.split(".")[0] == name for entry in shown)}
    assert not missing


def test_examples_in_docstrings_are_code():
    docstring = "Add.\n\n>>> add(\n...     1, 2\n... )\n3\n>>> add(0, 0)\n0\n\nMore.\n\n>>> add(1, 1)\n2"
    code = "```pycon\n>>> add(\n...     1, 2\n... )\n3\n>>> add(0, 0)\n0\n```"
    assert fenced(docstring).strip() == f"Add.\n\n{code}\n\nMore.\n\n```pycon\n>>> add(1, 1)\n2\n```"
    assert fenced("No examples.").strip() == "No examples."


def test_links_of_the_repository_lead_to_the_same_pages_on_the_site():
    assert links_of_site("[a](../studies/b/README.md#c)", "results.md") == "[a](studies/b/README.md#c)"
    assert links_of_site("![a](../../studies/b.png)", "howto/data.md") == "![a](../studies/b.png)"
    assert links_of_site("[a](../docs/results.md)", "studies/README.md") == "[a](../results.md)"
    assert links_of_site("[a](../../notebooks/tutorial.py)", "howto/index.md") == "[a](../notebooks/tutorial.md)"
    assert links_of_site("[a](../docs/howto/data.md)", "notebooks/tutorial.md") == "[a](../howto/data.md)"
    pages = [page for folder in ("docs", "studies") for page in Path(folder).rglob("*.md")]
    for page in (Path("README.md"), *pages, *Path("notebooks").glob("*.py")):
        for target in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_what_a_page_loads_from_elsewhere_is_found():
    links = '<a href="https://a.org">a</a><img src="a/b.png"><link rel="stylesheet" href="../c.css">'
    assert not loaded_from_elsewhere(links)
    for loaded in (
        '<script src="https://a.org/b.js">',
        '<link rel="icon" href=//a.org/b>',
        "<img alt='' src='http://a'>",
    ):
        assert loaded_from_elsewhere(links + loaded) == [loaded]
