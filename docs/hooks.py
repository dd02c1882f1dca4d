"""Adds the pages, plots and results of `studies/` to the site, at their paths in the repository, and checks it."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOADED = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
SHOWN = ("*.md", "*.png", "*.svg", "*.json")


def on_files(files: Any, config: Any) -> Any:
    """Add the files of the studies; MkDocs calls this before it reads pages."""
    from mkdocs.structure.files import File  # here, because tests of the links run without MkDocs

    for pattern in SHOWN:
        for path in sorted((ROOT / "studies").rglob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links lead where the site has the pages; MkDocs calls this before it renders a page."""
    return links_of_site(markdown, page.file.src_uri)


def on_post_build(config: Any) -> None:
    """Fail if a page would load something from elsewhere; MkDocs calls this at the end."""
    from mkdocs.exceptions import PluginError

    for path in sorted(Path(config.site_dir).rglob("*.html")):
        if found := loaded_from_elsewhere(path.read_text()):
            raise PluginError(f"{path}: loads from elsewhere: {found[0]}")


def loaded_from_elsewhere(html: str) -> list[str]:
    """Return the elements of a page that a browser loads from another host."""
    return LOADED.findall(html)


def links_of_site(markdown: str, page: str) -> str:
    """Return a page with its links between docs/ and studies/, which are those of the repository, as those of the site.

    There, docs/ is the root, and studies/ is in it.
    """
    if page.startswith("studies/"):
        return re.sub(r"(\]\((?:\.\./)+)docs/", r"\1", markdown)
    return re.sub(r"\]\(\.\./((?:\.\./)*studies/)", r"](\1", markdown)
