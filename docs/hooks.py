"""Adds the pages, plots and results of `studies/` to the site, at their paths in the repository."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SHOWN = ("*.md", "*.png", "*.svg", "*.json")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the studies; MkDocs calls this before it reads pages."""
    for pattern in SHOWN:
        for path in sorted((ROOT / "studies").rglob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
