"""The README.md of an exported folder."""

import json
from collections.abc import Mapping
from typing import Any

from hvq_jax.export.manifest import BATCH, Form, Forms, Manifest, Program
from hvq_jax.runs.trained import TrainedRun

_LICENCE = """## Licence

Not stated. Whoever publishes these files says here under which licence.
"""


def jax_readme(manifest: Manifest) -> str:
    """Return the README of programs in JAX's format: what they take, and how any process runs them."""
    names = manifest["programs"]
    lines = [
        "import jax",
        "import numpy as np",
        "",
        "def load(name):",
        '    with open(f"FOLDER/{name}.jax", "rb") as file:',
        "        return jax.jit(jax.export.deserialize(bytearray(file.read())).call)",
        "",
    ]
    if "encoder" in names:
        shape = ", ".join(map(str, names["encoder"]["arguments"]["images"]["shape"][1:]))
        lines += [
            f"images = np.zeros((3, {shape}), np.uint8)",
            'codes = load("encoder")(images=images)  # arrays by name',
            'images = load("decoder")(**codes)["images"]',
        ]
    if "sampler" in names:
        lines += ['drawn = load("sampler")(labels=np.zeros(8, np.int32), seed=np.uint32(1))']
    versions = manifest["jax"]
    return f"""# {manifest["run"]}: programs for JAX

A run of hvq_jax {manifest["hvq_jax"]} with the latent `{manifest["latent"]}`, as
`jax.export` programs: parameters included, for any batch size, on {", ".join(versions["platforms"])}. To run them,
hvq_jax is not needed: `pip install jax flatbuffers`, and

```python
{chr(10).join(lines)}
```

All arguments are given by name. With hvq_jax, `hvq.load_exported("FOLDER")` checks files, versions and arguments.

{_tables(names)}
They were exported with JAX {versions["version"]}, calling convention {versions["calling_convention_version"]}. JAX
[promises](https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees) that versions of the next six
months run them.

{_LICENCE}"""


def onnx_readme(manifest: Manifest, note: str) -> str:
    """Return the README of programs in ONNX."""
    names = manifest["programs"]
    shape = ", ".join(map(str, names["encoder"]["arguments"]["images"]["shape"][1:]))
    return f"""# {manifest["run"]}: programs for ONNX

A run of hvq_jax {manifest["hvq_jax"]} with the latent `{manifest["latent"]}`, as
ONNX models: parameters included, for any batch size. `pip install onnxruntime`, and

```python
import numpy as np
import onnxruntime

encoder = onnxruntime.InferenceSession("FOLDER/encoder.onnx")
decoder = onnxruntime.InferenceSession("FOLDER/decoder.onnx")
names = [result.name for result in encoder.get_outputs()]
codes = encoder.run(names, {{"images": np.zeros((3, {shape}), np.uint8)}})
(images,) = decoder.run(None, dict(zip(names, codes)))
```

{note}

{_tables(names)}
{_LICENCE}"""


def _tables(programs: Mapping[str, Program]) -> str:
    """Return a table of the arguments and results of each program."""
    text = ""
    for name, program in programs.items():
        rows = [*_rows("argument", program["arguments"]), *_rows("result", program["results"])]
        text += f"**{name}**\n\n| | | form | |\n|---|---|---|---|\n{chr(10).join(rows)}\n\n"
    return text


def _rows(kind: str, forms: Forms) -> list[str]:
    return [f"| {kind} | `{name}` | {_in_words(form)} | {form['meaning']} |" for name, form in forms.items()]


def _in_words(form: Form) -> str:
    shape = ", ".join("N" if size == BATCH else str(size) for size in form["shape"])
    limits = "" if form["low"] is None else f", {form['low']} to {form['high']}"
    return f"`[{shape}]` {form['dtype']}{limits}"


def weights_readme(
    run: TrainedRun, about: Mapping[str, str], summary: Mapping[str, Any], data: Mapping[str, Any]
) -> str:
    """Return the model card of a run's weights."""
    config = json.loads(about["config"])
    metrics = [
        f"| {stage} | {name} | {value:.6g} |"
        for stage in ("autoencoder", "prior")
        for name, value in summary.get(stage, {}).get("test", {}).items()
        if isinstance(value, int | float)
    ]
    shape = "×".join(map(str, data.get("image_shape") or data["latent_shape"]))
    table = "\n".join(["| stage | metric | value |", "|---|---|---|", *metrics]) if metrics else "Not evaluated."
    return f"""---
library_name: hvq_jax
tags: [vq-vae, jax]
---
# {run.workdir.name}

{_what(run, config, about["num_codes"])}

**Data.** {data["name"]}, {shape}{_classes(run)}.

**Metrics** on the test split, of the best checkpoints (steps {about["steps"]}):

{table}

## Files

`model.safetensors` has the arrays of Flax's collections by their dotted names, float32 unless they are masks or counts:
`params.…`, `batch_stats.…`, `quantizer.…` (the quantizer's state), `codes` (the vector of each index), `prior.params.…`
and `tables.…` (how the prior's integers become lengths and residuals). Its metadata has the config, sizes and versions.

```python
import json
from safetensors import safe_open
from safetensors.numpy import load_file

arrays = load_file("FOLDER/model.safetensors")
with safe_open("FOLDER/model.safetensors", "numpy") as file:
    about = {{name: value for name, value in file.metadata().items()}}
config = json.loads(about["config"])
```

Exported by hvq_jax {about["hvq_jax"]} with JAX {about["jax"]} and Flax {about["flax"]}; parameters
`{about["parameters_sha256"]}`.

{_LICENCE}"""


def _what(run: TrainedRun, config: Mapping[str, Any], num_codes: str) -> str:
    latent = f"latent `{config['latent']['mode']}`, K = {num_codes}, D = {config['latent']['dim']}"
    if run.image_shape is None:
        return f"A prior over latents of {' × '.join(map(str, run.latent_shape))} positions ({latent})."
    return (
        f"A hybrid-latent VQ-VAE: {latent}, {run.model.encoder().factor} image pixels per latent side, codebook "
        f"`{config['codebook']['family']}`."
    )


def _classes(run: TrainedRun) -> str:
    return f"; {len(run.class_names)} classes: {', '.join(run.class_names)}" if run.class_names else ""
