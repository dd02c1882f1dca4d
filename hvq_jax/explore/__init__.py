"""A local page that draws from a trained run, completes images, and edits their latents: `python -m hvq_jax.explore`.

It needs Bokeh, of the extra `explore`.
"""
