"""Adds pages to the site that are not in docs/, and checks it.

Those of `studies/`, with their plots and results, and those of `notebooks/`, executed by `make notebook`, are at their
paths in the repository.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOADED = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
SHOWN = ("*.md", "*.png", "*.svg", "*.json", "*.ipynb")


def on_files(files: Any, config: Any) -> Any:
    """Add the files of the studies; MkDocs calls this before it reads pages."""
    from mkdocs.structure.files import File  # here, because tests of the links run without MkDocs

    for root, folder in ((ROOT, "studies"), (ROOT / "build", "notebooks")):
        for path in sorted(path for pattern in SHOWN for path in (root / folder).rglob(pattern)):
            name = path.relative_to(root).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links lead where the site has the pages; MkDocs calls this before it renders a page."""
    return links_of_site(markdown, page.file.src_uri)


def on_post_build(config: Any) -> None:
    """Fail if a page would load something from elsewhere; MkDocs calls this at the end."""
    from mkdocs.exceptions import PluginError

    for path in sorted(Path(config.site_dir).rglob("*.html")):
        if found := loaded_from_elsewhere(path.read_text(encoding="utf-8")):
            raise PluginError(f"{path}: loads from elsewhere: {found[0]}")


def loaded_from_elsewhere(html: str) -> list[str]:
    """Return the elements of a page that a browser loads from another host."""
    return LOADED.findall(html)


def links_of_site(markdown: str, page: str) -> str:
    """Return a page with its links between docs/, studies/ and notebooks/ as those of the site, not of the repository.

    There, docs/ is the root, and the others are in it.
    """
    if page.startswith("notebooks/"):
        markdown = re.sub(r"\]\((\w+)\.py\)", r"](\1.ipynb)", markdown)
    if page.startswith(("studies/", "notebooks/")):
        return re.sub(r"(\]\((?:\.\./)+)docs/", r"\1", markdown)
    markdown = re.sub(r"\]\(\.\./((?:\.\./)*notebooks/\w+)\.py", r"](\1.md", markdown)
    return re.sub(r"\]\(\.\./((?:\.\./)*studies/)", r"](\1", markdown)
