"""Redraw figures and tables of studies, and write the numbers in their pages, docs/results.md and the README.

    python -m studies.write_pages            # all, as `make report`
    python -m studies.write_pages codebooks  # one study, docs/results.md and the README

Trains nothing, and changes nothing where the files already follow from the results.
"""

import argparse
import sys

from hvq_jax.command import exit_status
from hvq_jax.files import write_text
from studies.pages import PAGES, SUMMARIES


def main(arguments: list[str]) -> None:
    """Write the pages of the studies that are named, of all if none is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="study", help=f"{', '.join(PAGES)} (default: all)")
    names = parser.parse_args(arguments).studies
    if unknown := [name for name in names if name not in PAGES]:
        parser.error(f"no study {unknown[0]}: choose from {', '.join(PAGES)}")
    for page in dict.fromkeys([*(PAGES[name] for name in names or PAGES), *SUMMARIES]):
        page.redraw()
        text = page.path.read_text(encoding="utf-8")
        if (now := page.write(text)) != text:
            write_text(page.path, now)
        print(f"{page.name}: {'changed' if now != text else 'as it was'}", flush=True)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
