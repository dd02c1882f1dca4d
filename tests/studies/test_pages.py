"""Every number in the pages of studies, in docs/results.md and in the README's answer is a stored one."""

import dataclasses
import re

import pytest

from hvq_jax.errors import UserError
from studies import find_folder
from studies.numbers import find_loose_numbers, format_number, rewrite
from studies.pages import PAGES, STUDY_PAGES
from studies.write_pages import main

NO_PROSE = r"^```.*?^```|(?<=\n\n)(?: {4}[^\n]*\n)+|`[^`]*`|<!--.*?-->|\]\([^)]*\)"  # code, comments and links
NUMBERS = {"vq/mse": 0.02356, "a b/codes_used": 0.975, "change": -1234.5}
TABLES = {"rows": "| a |\n| --- |\n| 1 |\n"}


def fill(page):
    return rewrite(page, NUMBERS, TABLES, "page.md")


def is_stored(page, text):
    """Whether `text` of a page is what its results say, without a number of another origin."""
    try:
        return page.write(text) == text and not page.find_loose_numbers(text)
    except (UserError, ValueError):  # a name or a definition that there is not
        return False


@pytest.mark.parametrize("name", PAGES)
def test_every_number_of_a_page_is_stored_or_a_definition(name):
    text = PAGES[name].path.read_text()
    assert PAGES[name].write(text) == text, "run make report"
    assert not PAGES[name].find_loose_numbers(text)


@pytest.mark.parametrize("name", PAGES)
def test_no_number_of_a_page_can_be_changed(name):
    page = PAGES[name]
    text = "\n\n".join(page.parts(page.path.read_text()))
    page = dataclasses.replace(page, sections=())
    assert is_stored(page, text)
    prose = re.sub(NO_PROSE, lambda match: "_" * len(match[0]), text, flags=re.DOTALL | re.MULTILINE)
    places = [match.start() for match in re.finditer(r"\d(?![\d.,]*\d)", prose)]  # the last one of each number
    assert places
    for place in places:
        changed = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        assert not is_stored(page, changed), text[max(place - 30, 0) : place + 30]


def test_every_study_has_a_page():
    assert {path.parent.name for path in find_folder("").glob("*/README.md")} == set(STUDY_PAGES)


def test_numbers_and_tables_are_filled_in():
    page = "MSE 9<!--vq/mse-->, 8<!--vq/mse:.2g--> and 1.5<!--a b/codes_used:.1%--> %, `vq` by −3<!--change:,.0f-->.\n"
    assert fill(page) == (
        "MSE 0.0236<!--vq/mse-->, 0.024<!--vq/mse:.2g--> and 97.5<!--a b/codes_used:.1%--> %, "
        "`vq` by −1,234<!--change:,.0f-->.\n"
    )
    assert fill("<!--table rows-->\nold 1<!--vq/mse-->\n<!--end-->\n") == (
        "<!--table rows-->\n| a |\n| --- |\n| 1 |\n<!--end-->\n"
    )
    assert fill("<!-- a remark -->\n") == "<!-- a remark -->\n"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("1<!--vq/msx-->", "page.md: there is no vq/msx; similar: vq/mse"),
        ("one<!--vq/mse-->", "page.md: the comment <!--vq/mse--> does not follow a number"),
        ("<!--table rows-->\n", "page.md: the comment <!--table rows--> does not follow a number, and starts no table"),
        ("<!--table lines-->\n<!--end-->", "page.md: there is no lines"),
        ("1<!--vq/mse:.4q-->", "page.md: .* in the format .4q"),
    ],
)
def test_comments_that_mean_nothing_are_named(page, message):
    with pytest.raises(UserError, match=message):
        fill(page)


def test_percent_and_minus_are_written_as_in_text():
    assert format_number(0.055, "%") == "6"
    assert format_number(-0.2, "+.1f") == "−0.2"
    assert format_number(0.2, "+.1f") == "+0.2"


def test_loose_numbers_are_found():
    page = """
D = 64 at 0.2<!--vq/mse-->, `--seed=3` and [a link](page-2.md).

    command --of=5

<!--table rows-->
| 6 |
<!--end-->
* First
    7 as a continuation of a list
And 0.64, K = 8.
"""
    assert find_loose_numbers(page, ["D = 64"]) == ["7 as a continuation of a list", "And 0.64, K = 8."]
    assert find_loose_numbers(page, ["D = 64", "7 as", "0.64", "K = 8"]) == []
    assert find_loose_numbers(page + "\nD = 64\n", ["D = 64", "D = 64", "7 as", "0.64", "K = 8"]) == []
    with pytest.raises(ValueError, match="definitions: 'D = 64' is in the page 2 times, not 1"):
        find_loose_numbers(page + "\nD = 64\n", ["D = 64"])
    for phrase, fault in {
        "D = 65": "is in the page 0 times, not 1",
        "D = 6": "is in the page 0 times, not 1",
        "K =": "has no number",
    }.items():
        with pytest.raises(ValueError, match=f"definitions: '{phrase}' {fault}"):
            find_loose_numbers(page, [phrase])


def test_the_command_writes_what_differs_and_nothing_else(tmp_path, monkeypatch, capsys):
    page = tmp_path / "README.md"
    page.write_text("MSE 9<!--vq/mse-->\n")
    drawn = []
    of_study = type(PAGES["README"])(page, lambda: drawn.append(1), lambda: NUMBERS)
    monkeypatch.setattr("studies.write_pages.PAGES", {"a": of_study})
    monkeypatch.setattr("studies.write_pages.SUMMARIES", (of_study,))
    monkeypatch.setattr("studies.page.ROOT", tmp_path)
    main(["a"])
    assert page.read_text() == "MSE 0.0236<!--vq/mse-->\n"
    written = page.stat().st_mtime_ns
    main([])
    assert (page.stat().st_mtime_ns, len(drawn)) == (written, 2)
    assert capsys.readouterr().out == "README.md: changed\nREADME.md: as it was\n"
    with pytest.raises(SystemExit):
        main(["b"])
    assert "no study b: choose from a" in capsys.readouterr().err
