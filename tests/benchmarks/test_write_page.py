"""The tables of docs/performance.md are those of the stored results."""

from benchmarks import write_page
from hvq_jax.files import write_json


def test_the_page_is_written_from_stored_results():
    text = write_page.PAGE.read_text()
    assert write_page.written(text) == text, "run python -m benchmarks.write_page"


def test_tables_without_stored_results_stay(monkeypatch, tmp_path):
    monkeypatch.setattr(write_page, "_RESULTS", tmp_path)
    page = "<!--table speed-->\nas it was\n<!--end-->\n<!--table waiting-->\n<!--end-->\n"
    assert write_page.written(page) == page
    row = {"row": "help", "title": "the help text", "command": "python", "cpu": [2.0], "wall": [9.0]}
    for name, cpu in (("waiting_before", 2.0), ("waiting", 1.0)):
        write_json(tmp_path / f"{name}.json", {"conditions": "one run", "rows": [row | {"cpu": [cpu]}]})
    assert write_page.written(page) == (
        "<!--table speed-->\nas it was\n<!--end-->\n<!--table waiting-->\n"
        "|  | command | CPU s before (min–max) | after | ratio | wall s after |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| the help text | `python` | 2.0 | 1.0 | 0.50 | 9.0 |\n\nOne run.\n<!--end-->\n"
    )
