"""Options are declared once, in the dataclass that uses them, and everything else follows from it."""

import collections
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from configs import default
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.latents import LATENTS
from hvq_jax.networks import Encoder, EncoderNetwork
from hvq_jax.options import Options, option, section, walk
from hvq_jax.priors.sampling import SamplingOptions
from hvq_jax.quantizers import QUANTIZERS, CodebookOptions, LatentOptions
from hvq_jax.registry import constructing, find
from hvq_jax.runs.options import (
    CHANGEABLE,
    KEYS,
    RECORDED,
    RunOptions,
    describe,
    from_dict,
    reference_page,
    to_config,
    to_dict,
    with_added,
)


@dataclasses.dataclass(frozen=True)
class Inner(Options):
    share: float = option(0.5, "a share", low=0, high=1)


@dataclasses.dataclass(frozen=True)
class Unbounded(Options):
    rate: float = option(0.5, "a rate")


@dataclasses.dataclass(frozen=True)
class Outer(Options):
    count: int = option(3, "a number", low=1)
    side: int | tuple[int, ...] = option(0, "a side or two")
    name: str | None = option(None, "a name")
    kind: str = option("a", "a kind", choices=("a", "b"), importable=True)
    flag: bool = option(False, "a flag")
    inner: Inner = section(Inner)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"count": 0}, "count=0: must be at least 1"),
        ({"count": 2.5}, "count=2.5: must be an integer"),
        ({"count": True}, "count=True: must be an integer"),
        ({"side": "x"}, "side='x': must be an integer or a tuple of integers"),
        ({"side": (1, 2.5)}, r"side=\(1, 2.5\): must be an integer or a tuple of integers"),
        ({"name": 3}, "name=3: must be a string or None"),
        ({"kind": "c"}, "kind=c: choose one of a, b, or package.module:Class"),
        ({"flag": 1}, "flag=1: must be True or False"),
    ],
)
def test_what_is_made_wrongly_fails_when_it_is_made_with_its_name(wrong, said):
    with pytest.raises(ArgumentError, match=f"^{said}$"):
        Outer(**wrong)


@given(st.one_of(st.integers(), st.floats(), st.integers(min_value=2**31, max_value=2**70)))
def test_every_number_fits_into_32_bits(value):
    for kind, name in ((Outer, "count"), (Outer, "side"), (Unbounded, "rate")):
        try:
            made = getattr(kind(**{name: value}), name)
        except ArgumentError:
            continue
        assert np.isfinite(np.float32(made))
        assert not isinstance(made, int) or made < 2**31


@given(st.floats())
def test_a_range_holds_for_every_number(share):
    if 0 <= share <= 1:
        assert Inner(share).share == share
    else:
        with pytest.raises(ArgumentError, match="share="):
            Inner(share)


def test_numbers_of_numpy_are_checked_like_others_and_become_pythons():
    made = Outer(count=np.int64(4), inner=Inner(np.float32(0.5)), flag=np.bool_(True))
    assert (type(made.count), type(made.inner.share), type(made.flag)) == (int, float, bool)
    with pytest.raises(ArgumentError, match="count=-4: must be at least 1"):
        Outer(count=np.int64(-4))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "part=nothing: choose one of a, or package.module:Class"),
        ("no.such.module:Class", r"part=no.such.module:Class: cannot be imported \(No module named 'no'\)"),
        ("os.path:nothing", "part=os.path:nothing: cannot be imported"),
        ("os.path:join", "part=os.path:join: must be a class, not function"),
    ],
)
def test_a_part_that_is_not_there_is_one_line(name, said):
    with pytest.raises(ArgumentError, match=said):
        find("part", name, {"a": Inner})
    assert find("part", "a", {"a": Inner}) is Inner
    assert find("part", "collections:OrderedDict", {}) is collections.OrderedDict


def test_an_imported_part_must_have_what_the_interface_names():
    with pytest.raises(ArgumentError, match=r"part=builtins:int: is not like OrderedDict in collections: no clear, c"):
        find("part", "builtins:int", {}, collections.OrderedDict)
    assert find("part", "a:b", {"a:b": int}, collections.OrderedDict) is int  # what is registered is known to fit
    # Some fields have no default, so that the class has no attribute of their name.
    assert find("part", "hvq_jax.networks:Encoder", {}, EncoderNetwork) is Encoder


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(3), TypeError("takes no arguments")])
def test_an_imported_part_that_cannot_be_constructed_is_named(error):
    with pytest.raises(ArgumentError, match=r"part=a\.b:C: cannot be constructed"), constructing("part", "a.b:C"):
        raise error
    with pytest.raises(type(error)), constructing("part", "registered"):
        raise error  # a fault of this package


def test_an_option_of_an_earlier_version_in_a_config_file_is_told_its_new_name():
    stored = to_dict(RunOptions())
    stored["codebook"]["method"] = "gradient"
    with pytest.raises(UserError, match=r"codebook\.method: it is codebook\.learning=ema\|gradient now"):
        from_dict(stored)


def test_sections_are_walked_by_dotted_names():
    assert [key for key, _ in walk(Outer)] == ["count", "side", "name", "kind", "flag", "inner.share"]


def test_what_is_registered_later_may_be_chosen(monkeypatch):
    monkeypatch.setitem(QUANTIZERS, "mine", QUANTIZERS["codebook"])
    assert CodebookOptions(family="mine").family == "mine"
    with pytest.raises(ArgumentError, match=r"family=yours: choose one of codebook, .*, mine"):
        CodebookOptions(family="yours")


def test_the_default_config_is_the_tree_of_options_and_every_option_can_be_overridden():
    config = default.get_config()
    assert from_dict(config) == RunOptions()
    for mode in LATENTS:
        assert from_dict(default.get_config(mode)).latent.mode == mode
    with config.unlocked():
        config.latent.frequent_mass = 0.5
        config.prior.width = 32
        config.data.data_dir = "somewhere"
        config.data.image_size = (24, 32)
    options = from_dict(config)
    assert (options.latent.frequent_mass, options.prior.width, options.data.sides) == (0.5, 32, (24, 32))


def test_options_survive_json():
    options = dataclasses.replace(
        RunOptions(),
        latent=LatentOptions(mode="vq"),
        codebook=CodebookOptions(family="fsq", levels=(5, 3)),
    )
    stored = json.loads(json.dumps(to_dict(options)))
    assert from_dict(stored) == options
    assert from_dict(to_config(from_dict(stored))) == options


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_config_of_another_version_never_falls_back_on_defaults(change):
    stored = to_dict(RunOptions())
    if change == "missing":
        del stored["latent"]["estimator"]
    else:
        stored["latent"]["temperature"] = 1.0
    with pytest.raises(UserError, match=r"another version: latent\.(estimator|temperature) is missing or unknown"):
        from_dict(stored)


def test_options_that_a_stored_config_is_too_old_for_are_as_by_their_defaults_if_they_are_declared_so():
    stored = to_dict(RunOptions())
    added = [key for key, field in KEYS.items() if field.metadata["rule"].added]
    for key in added:
        name, _, short = key.rpartition(".")
        del (stored[name] if name else stored)[short]
    assert "autoencoder.accumulate_steps" in added
    with pytest.raises(UserError, match=r"another version: .* missing or unknown"):
        from_dict(stored)
    assert from_dict(with_added(stored)) == RunOptions()
    del stored["latent"]["estimator"]
    with pytest.raises(UserError, match=r"another version: latent\.estimator is missing"):
        from_dict(with_added(stored))


@pytest.mark.parametrize(
    ("section_name", "values", "said"),
    [
        ("latent", {"projection_groups": 3}, "latent.projection_groups=3: must divide latent.dim=64"),
        ("latent", {"mode": "frequency", "num_frequent": 513}, "latent.num_frequent=513: must be from 0 to 512"),
        ("codebook", {"levels": (8, 1)}, "codebook.levels="),
        (
            "codebook",
            {"depth": 2},
            "codebook.depth=2: codebook.family=codebook has no such option: choose codebook.family=res",
        ),
        ("codebook", {"family": "fsq"}, "latent.mode=projected: codebook.family=fsq needs latent.mode=vq"),
        ("codebook", {"unit_norm": "codes"}, "needs loss.commitment_target=projection"),
        ("loss", {"entropy_temperature": 0.0}, "loss.entropy_temperature=0.0: must be at least 1e-06"),
        ("prior", {"name": "transformer", "num_heads": 5}, "prior.num_heads=5: must divide prior.width=192"),
        ("prior", {"dropout": 0.1}, "prior.dropout=0.1: prior.name=pixelcnn has no such option: choose"),
        ("sampling", {"top_p": 0.0}, "sampling.top_p=0.0: must be above 0 and at most 1"),
        ("augment", {"crop_padding": -1}, "augment.crop_padding=-1: must be at least 0"),
    ],
)
def test_options_that_do_not_agree_are_one_line_in_the_library(section_name, values, said):
    stored = to_dict(RunOptions())
    stored[section_name].update(values)
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        from_dict(stored)


@pytest.mark.parametrize("latents", [None, "own.npz"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latent.mode": "vq", "codebook.family": "fsq", "loss.entropy_weight": 0.1}, "needs loss.entropy_weight=0.0"),
        ({"latent.mode": "projected", "codebook.unit_norm": "codes"}, "needs loss.commitment_target=projection"),
        ({"codebook.depth": 2}, "codebook.depth=2: "),
        ({"latent.mode": "frequency", "latent.num_frequent": 513}, "num_frequent=513: must be from 0 to 512"),
    ],
)
def test_the_same_is_refused_of_images_and_of_ones_own_latents(latents, changes, said):
    """But for the number of frequent codes, which a file of latents marks itself."""
    stored = to_dict(RunOptions())
    stored["stage"], stored["prior"]["latents"] = "prior", latents
    for key, value in changes.items():
        section_name, _, name = key.partition(".")
        stored[section_name][name] = value
    if latents and "latent.num_frequent" in changes:
        assert from_dict(stored).prior.latents == latents
        return
    with pytest.raises(ArgumentError, match=said):
        from_dict(stored)


def test_a_temperature_of_what_is_not_drawn_is_refused_at_once():
    stored = to_dict(RunOptions())
    stored["sampling"]["continuous_temperature"] = 0.5
    assert from_dict(stored).sampling.continuous_temperature == 0.5
    stored["prior"]["num_bins"] = 1
    with pytest.raises(ArgumentError, match=r"latent\.mode=projected with prior\.num_bins=1 draws codes only"):
        from_dict(stored)


@pytest.mark.parametrize("family", ["residual", "residual_fsq", "tests.plugins.pairs:Pairs"])
def test_a_prior_covers_as_many_codes_per_position_as_the_quantizer_gives(family):
    stored = to_dict(RunOptions())
    stored["latent"]["mode"] = "vq"
    stored["codebook"].update(family=family, depth=2)
    prior = from_dict(stored).prior_model(num_classes=10, grid=(7, 7))
    assert (prior.codes_per_position, prior.num_channels) == (2, 2)


@pytest.mark.parametrize("mode", ["projected", "frequency"])
def test_a_prior_over_several_codes_and_lengths_or_residuals_is_refused(mode):
    stored = to_dict(RunOptions())
    stored["latent"]["mode"] = mode
    stored["codebook"].update(family="tests.plugins.pairs:Pairs", depth=2)
    with pytest.raises(ArgumentError, match=f"no prior over these with latent.mode={mode}: choose latent.mode=vq or"):
        from_dict(stored)
    assert from_dict({**stored, "stage": "autoencoder"}).codebook.depth == 2


def test_every_option_has_a_help_text_and_a_place_in_help_and_in_the_page():
    helped, page = describe(), Path("docs/options.md").read_text()
    for key, field in KEYS.items():
        assert field.metadata["rule"].help
        assert f"--config.{key}=" in helped
        assert f"| `{key.rpartition('.')[2]}`" in page


def test_the_reference_page_is_that_of_this_version():
    assert Path("docs/options.md").read_text() == reference_page()  # python -m hvq_jax.runs.options > docs/options.md


def test_the_options_that_may_change_do_not_change_what_is_learned_or_are_recorded():
    assert "latent.mode" not in (*CHANGEABLE, *RECORDED)
    assert {"autoencoder.learning_rate", "prior.num_epochs"} <= set(RECORDED)
    assert not set(RECORDED) & set(CHANGEABLE)
    assert {"stage", "data.data_dir", "autoencoder.log_every_steps", "prior.steps_per_dispatch"} <= set(CHANGEABLE)
    assert all(f"sampling.{field.name}" in CHANGEABLE for field in dataclasses.fields(SamplingOptions))
