# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
"""
# A notebook: four latents, one image

[This notebook](tutorial.py) takes one image through all four latents, step by step. It trains a small model for that,
draws from it, and counts what an image costs: in bits, and in the bytes of a file. It runs in a few minutes on two CPU
cores.
"""

# %%
import os
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import hvq_jax as hvq

os.chdir(tempfile.mkdtemp())  # everything is written there

# %% [markdown]
"""
## Data

10,000 images of clothes come with the package, 28 × 28 pixels each (Fashion-MNIST's official *test* file, so nothing
here is a Fashion-MNIST result). Any arrays of your own serve as well: images `[N, H, W, C]`, uint8, with labels or
without.
"""

# %%
data = hvq.load_dataset("fashion_mnist_mini", data_dir="data")
test_images, test_labels = data.test.read(np.arange(len(data.test)))
print(data.counts)


# %%
def show(images, titles=(), height=1.3):
    """Show images `[N, H, W, C]` in a row."""
    size = (height * len(images), height * 1.25)
    _, places = plt.subplots(1, len(images), figsize=size, layout="constrained")
    for number, axes in enumerate(np.atleast_1d(places)):
        axes.imshow(images[number, ..., 0], cmap="gray", vmin=0, vmax=255)
        axes.set_title(titles[number] if number < len(titles) else "", fontsize=9)
        axes.axis("off")
    plt.show()


show(test_images[:10], [data.class_names[label] for label in test_labels[:10]])

# %% [markdown]
"""
## Train for a minute

A run has two stages. The *autoencoder* learns to turn an image into 7 × 7 vectors, each assigned one of 128 codes, and
back. The *prior* learns how these codes follow each other, given the class of the image. Options that are not set have
their defaults; the latent is `projected`, explained below.
"""

# %%
options = hvq.RunOptions(
    latent=hvq.LatentOptions(mode="projected", num_codes=128, num_frequent=64, dim=16),
    network=hvq.NetworkOptions(num_blocks=1),
    autoencoder=hvq.FitOptions(batch_size=64, num_steps=400, log_every_steps=100),
    prior=hvq.PriorStageOptions(
        width=32, num_layers=4, head_width=64, batch_size=64, num_steps=400, log_every_steps=100, learning_rate=2e-3
    ),
)
run = hvq.train(options, "run", data=data)
print(run.description)

# %% [markdown]
"""
## One image, step by step

The encoder maps an image $x$ to a vector $z_e$ at each of 7 × 7 positions.
"""

# %%
image = test_images[3]
model, variables = run.stream.model, run.stream.variables
x = jnp.asarray(image[None], jnp.float32) / 127.5 - 1
z_e = hvq.autoencoder.encode(model, variables, x)[0]
print(z_e.shape)

# %% [markdown]
"""
Each vector is assigned a code $e$, the nearest of the 128 in the codebook. The indices of the codes are all that a
plain VQ-VAE keeps of the image: 49 integers.
"""

# %%
codes = run.codebook
indices = hvq.nearest_codes(z_e, codes)
print(np.asarray(indices))

# %% [markdown]
r"""
What does a code leave out? The vector $z_e$ rarely points exactly along its code, and it has another length. Its
*projection* onto the line of the code makes up for the length:

$$P(z_e, e) = \alpha e, \qquad \alpha = \frac{\langle z_e, e \rangle}{\Vert e \Vert^2}$$

The number $\alpha$ is the gain, one per position.
"""

# %%
gains = hvq.latents.gain(z_e, codes[indices])
code_error = jnp.sum((z_e - codes[indices]) ** 2, axis=-1)
projection_error = jnp.sum((z_e - hvq.project(z_e, codes[indices])) ** 2, axis=-1)

figure, places = plt.subplots(1, 4, figsize=(9, 2.4), layout="constrained")
most = float(code_error.max())
for axes, values, title, style in (
    (places[0], image[..., 0], "the image", {"cmap": "gray"}),
    (places[1], gains, "the gain α", {"cmap": "viridis"}),
    (places[2], code_error, "squared error of the code", {"cmap": "magma", "vmin": 0, "vmax": most}),
    (places[3], projection_error, "squared error of the projection", {"cmap": "magma", "vmin": 0, "vmax": most}),
):
    drawn = axes.imshow(values, **style)
    axes.set_title(title, fontsize=9)
    axes.axis("off")
    if axes is not places[0]:
        figure.colorbar(drawn, ax=axes, shrink=0.8)
plt.show()

# %% [markdown]
"""
The projection is never farther from $z_e$ than the code: it is the nearest point of the line.

The other two latents distinguish *frequent* codes from rare ones. Here $F$ counts how often each code is used in a
thousand images, and the 64 most frequent codes get $M = 1$.
"""

# %%
some, _ = data.train.read(np.arange(1000))
frequency = np.bincount(run.encode(some).indices.ravel(), minlength=len(codes)).astype(np.float32)
frequent = hvq.frequent_codes(frequency, num_frequent=64)
print(f"{frequency[np.asarray(frequent)].sum() / frequency.sum():.0%} of the positions have a frequent code")

# %% [markdown]
r"""
Now the four latents. They differ in what the decoder sees at a position:

| latent | $\bar z$ | |
|---|---|---|
| `vq` | $e$ | the code |
| `projected` | $P(z_e, e)$ | the code times a gain |
| `frequency` | $M e + (1 - M) z_e$ | the code where it is frequent, the encoder's output elsewhere |
| `combined` | $M e + (1 - M) P(z_e, e)$ | the code where it is frequent, the projection elsewhere |
"""

# %%
latents = {mode: hvq.hybrid_latent(z_e, codes, indices, frequent, mode=mode) for mode in hvq.LATENTS}
for mode, latent in latents.items():
    plain = int(latent.discrete.sum())
    error = float(jnp.mean(jnp.sum((latent.z_bar - z_e) ** 2, axis=-1)))
    print(f"{mode:10} plain codes at {plain:2} of 49 positions, squared error of a vector {error:.3f}")

# %% [markdown]
"""
One decoder can decode them all, since each is a grid of vectors. (It was trained with `projected`, so this shows what
each latent keeps, and not how good a model would be that is trained with it. For that, see the
[results](../docs/results.md).)
"""

# %%
decoded = run.decode_latents(np.stack([latent.z_bar for latent in latents.values()]))
show(np.concatenate([image[None], decoded]), ["the image", *latents], height=1.7)

# %% [markdown]
"""
Training needs a gradient through the choice of a code, which has none. `straight_through` gives the gradient of the
decoder to the encoder as it is: the value is the code's, the gradient that of $z_e$.
"""

# %%
value, gradient = jax.value_and_grad(lambda z: jnp.sum(hvq.straight_through(z, codes[indices]) ** 2))(z_e)
print(np.isclose(value, (codes[indices] ** 2).sum()), np.allclose(gradient, 2 * codes[indices], atol=1e-5))

# %% [markdown]
"""
## Sample

The prior draws codes and gains, one position after the other, and the decoder turns them into images. A temperature
below 1 and guidance to the class make clearer images, and less varied ones.
"""

# %%
show(run.sample(range(10), seed=1).images, data.class_names)
show(run.sample(range(10), seed=1, temperature=0.8, guidance=0.5).images)

# %% [markdown]
"""
It can also complete an image: here, the upper three rows of the latent are kept, and the other four are drawn.
"""

# %%
upper = np.arange(7)[:, None] < np.full(7, 3)
completed = run.complete(image, upper, num_samples=7, labels=int(test_labels[3]), seed=1).images[0]
show(np.concatenate([image[None], completed]), ["the image"])

# %% [markdown]
"""
## Interpolate

Between two images, the outputs of the encoder are interpolated, and quantized again. So every image on the way is made
of codes from the codebook.
"""

# %%
show(run.interpolate(test_images[3], test_images[4], steps=9)[0])

# %% [markdown]
r"""
## Count the bits

The prior gives every latent a probability $p$, and $-\log_2 p$ is the number of bits that an ideal code needs for it.
Where is the information of an image? Positions that the prior foresees, such as the background, cost the fewest bits.
"""

# %%
label = int(test_labels[3])
found = run.log_likelihood(image, label)
bits = -found.per_position[0] / np.log(2)

figure, (left, right) = plt.subplots(1, 2, figsize=(5.4, 2.4), layout="constrained")
left.imshow(image[..., 0], cmap="gray")
drawn = right.imshow(bits, cmap="viridis", vmin=0)
figure.colorbar(drawn, ax=right, label="bits")
for axes in (left, right):
    axes.axis("off")
plt.show()

print(f"{8 * image.size} bits as pixels of 8 bits")
print(f"{bits.size * np.log2(len(codes)):.0f} bits for 49 codes, if all were equally likely")
of_codes, of_gains = (-nats.sum() / np.log(2) for nats in (found.codes, found.continuous))
print(f"{of_codes:.1f} bits for the codes and {of_gains:.1f} bits for the gains, under the prior")

# %% [markdown]
"""
A gain is a real number, which no finite number of bits holds. It is rounded to one of 16 bins, so what is counted are
integers. The [mathematics](../docs/explanation/mathematics.md) has the details.

## Compress

These bits are no estimate: a range coder writes them. The file of one image has a header besides; what comes back is
the image decoded from the rounded latent, bit for bit.
"""

# %%
file = run.compress(image, label)
restored = run.decompress(file)
print(f"{bits.sum():.1f} bits under the prior; {8 * len(file)} bits in the file, with its header")
np.testing.assert_array_equal(restored.images, run.transmit(image).images)
show(np.concatenate([image[None], restored.images]), ["the image", "decompressed"], height=1.7)

# %% [markdown]
"""
The header is shared by all images of a file:
"""

# %%
many = run.compress(test_images[:500], test_labels[:500])
promised = -run.log_likelihood(test_images[:500], test_labels[:500]).per_image.mean() / np.log(2)
print(f"{8 * len(many) / 500:.1f} bits per image in a file of 500; {promised:.1f} bits under the prior")

# %% [markdown]
"""
## Then

* [Train](../docs/howto/train.md) for longer, [on images of yours](../docs/howto/data.md).
* [Open the run in a page](../docs/howto/explore.md), to change its codes by hand.
* [Choose a latent](../docs/howto/choose_latent.md).
"""
