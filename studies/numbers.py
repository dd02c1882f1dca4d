"""Numbers and tables in pages of Markdown, written from stored results.

A number is followed by a comment without spaces at its ends, which is invisible where the page is shown:

    the test MSE is 0.0236<!--vq/mse--> after 2 epochs, and 97<!--vq/codes_used:%--> % of the codes are used

The comment names a value, and may say how to format it, as in Python; `%` stands for percent without a decimal, and
`.1%` for percent with one. A table is everything between two comments:

    <!--table latents-->
    <!--end-->

`rewrite` fills in both, and `find_loose_numbers` finds numbers that are neither written so nor in code nor part of a
definition, such as "D = 64", of which a page has a list.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from hvq_jax.errors import UserError

# By the last part of a name
FORMATS = {
    "codes_used": "%",
    "gain_mean": ".2f",
    "gain_std": ".2f",
    "mse": ".4f",
    "peak": ".2f",
    "perplexity": ".0f",
    "psnr": ".1f",
    "radial_share": "%",
    "share_outside": "%",
}
MINUS = "−"  # in text; in code it is a hyphen

_NUMBER = rf"{MINUS}?\d[\d,]*(?:\.\d+)?"
_MARKED = re.compile(rf"(?P<number>{_NUMBER})<!--(?P<name>[^\s:<>][^:<>]*)(?::(?P<format>[^\s<>]+))?-->")
_TABLE = re.compile(r"(?P<start><!--table (?P<name>[^<>]+)-->\n)(?P<content>.*?)(?P<end><!--end-->)", re.DOTALL)
_COMMENT = re.compile(r"<!--(?P<content>.*?)-->", re.DOTALL)
_CODE = re.compile(r"^```.*?^```$|(?<=\n\n)(?: {4}[^\n]*\n)+|`[^`]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\])\([^)\s]*\)")


def rewrite(page: str, numbers: Mapping[str, float], tables: Mapping[str, str], where: str) -> str:
    """Return a page with its marked numbers and tables as they follow from stored results.

    Args:
        page: the text of the page.
        numbers: values by name.
        tables: Markdown tables by name.
        where: the page's path, for errors.

    Raises:
        UserError: a comment names nothing that is known, or does not follow a number.
    """

    def table(match: re.Match[str]) -> str:
        return match["start"] + _find(tables, match["name"], where) + match["end"]

    def number(match: re.Match[str]) -> str:
        name, spec = match["name"], match["format"]
        text = format_number(_find(numbers, name, where), spec or FORMATS.get(name.rpartition("/")[2], ".3g"), where)
        return text + match[0][len(match["number"]) :]

    for match in _COMMENT.finditer(_MARKED.sub("", _TABLE.sub("", page))):
        if not match["content"].startswith(" "):
            raise UserError(f"{where}: the comment {match[0]} does not follow a number, and starts no table that ends")
    parts, end = [], 0
    for match in _TABLE.finditer(page):  # the numbers in tables are not marked
        parts += [_MARKED.sub(number, page[end : match.start()]), table(match)]
        end = match.end()
    return "".join([*parts, _MARKED.sub(number, page[end:])])


def format_number(value: float, spec: str, where: str = "a number") -> str:
    """Return a value as text, with a minus sign that is no hyphen; "%" and ".1%" write no sign of percent."""
    try:
        text = format(value, ".0%" if spec == "%" else spec).removesuffix("%")
    except ValueError as error:
        raise UserError(f"{where}: {error} in the format {spec}") from None
    return text.replace("-", MINUS)


def _find(known: Mapping[str, Any], name: str, where: str) -> Any:
    if name in known:
        return known[name]
    similar = difflib.get_close_matches(name, known, cutoff=0.4)
    raise UserError(f"{where}: there is no {name}" + (f"; similar: {', '.join(similar)}" if similar else ""))


def find_loose_numbers(page: str, definitions: Iterable[str]) -> list[str]:
    """Return the lines with numbers that are neither marked, in tables written from results, in code, nor defined.

    Args:
        page: the text of the page.
        definitions: phrases with numbers that are no results, such as "D = 64", exactly as they stand in the page; a
            line break counts as a space. A phrase is given as often as it is in the page, so that no digit of one can
            be changed to make it another.

    Raises:
        ValueError: a definition has no number, or is in the page more or less often.
    """
    for pattern in (_CODE, _TABLE, _MARKED, _COMMENT, _LINK):
        page = pattern.sub("_", page)
    for phrase, expected in sorted(Counter(definitions).items(), key=lambda item: -len(item[0])):
        page, count = re.subn(
            r"(?<![\d.,])" + re.sub(r"\\? ", r"\\s+", re.escape(phrase)) + r"(?!\d|[.,]\d)", " ", page
        )
        if count != expected:
            raise ValueError(f"definitions: {phrase!r} is in the page {count} times, not {expected}")
        if not re.search(r"\d", phrase):
            raise ValueError(f"definitions: {phrase!r} has no number")
    return [line.strip() for line in page.splitlines() if re.search(r"\d", line)]
