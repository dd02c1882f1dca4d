"""`benchmarks.networks` compares priors of as many parameters."""

import pytest

from benchmarks import networks
from hvq_jax.errors import UserError


def test_a_transformer_has_about_as_many_parameters_as_the_pixelcnn():
    like = networks.num_parameters(networks.pixelcnn(), 4)
    assert like == 1_841_472  # the reference's
    for width in networks.WIDTHS:
        model = networks.transformer_like(like, 4, width)
        assert networks.num_parameters(model, 4) == pytest.approx(like, rel=0.2)


def test_a_real_run_prints_a_row_a_network(monkeypatch, capsys):
    monkeypatch.setattr(networks, "WIDTHS", (16,))
    monkeypatch.setattr(networks, "SHORTEST", 0.0)
    monkeypatch.setattr(networks, "_MOST_LAYERS", 2)
    networks.main(["--grid=2", "--batch=2", "--repetitions=1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:4]] == [["| PixelCNN", "64"], ["| Transformer", "16"]]
    assert lines[2].endswith("| 1.00 |")


def test_bad_input_is_one_line():
    for wrong in ("--grid=0", "--batch=0", "--repetitions=0"):
        with pytest.raises(UserError, match="at least 1"):
            networks.main([wrong])
