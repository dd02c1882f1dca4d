"""The Python of the README and of how-to pages does what its comments say; the README has two screens."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "docs/start.md", "docs/howto/quantizer_layer.md")]
SNIPPETS = {code for page in PAGES for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)}


def executed(beginning, **replaced):
    """Execute the snippet that contains `beginning`, with texts replaced; return its names."""
    (snippet,) = (snippet for snippet in SNIPPETS if beginning in snippet)
    for old, new in replaced.items():
        assert old in snippet
        snippet = snippet.replace(old, new)
    names = {}
    exec(snippet, names)
    return names


def test_the_readme_has_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_a_trained_run_is_used_as_the_readme_says(trained_run):
    found = executed("hvq.load(", **{"runs/quickstart": str(trained_run)})
    size, grid = found["run"].stream.image_shape, found["run"].stream.latent_shape
    assert found["drawn"].images.shape == found["images"].shape == (4, *size)
    assert found["codes"].indices.shape == found["codes"].gains.shape == (4, *grid)


def test_a_quantizer_is_put_into_a_network_as_its_page_says():
    found = executed("HybridQuantizer")
    assert found["reconstructions"].shape == found["images"].shape
    assert int(found["variables"]["codebook"]["HybridQuantizer_0"]["steps"]) == 1
