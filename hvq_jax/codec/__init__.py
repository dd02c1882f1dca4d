"""A codec of latents: what a prior says to cost n bits becomes n bits.

`decisions.py` turns binary decisions with known probabilities into bytes and back; `symbols.py` and `mixtures.py` turn
codes, bins and residuals into decisions; `steps.py` evaluates the prior position by position; `latent_codec.py` puts
these together for blocks of latents; and `file_format.py` is the .hvq file around the blocks.

Encoding and decoding are one piece of code: it is given the tokens by whoever encodes, and asks for each decision.
"""
