"""Export of trained runs: programs for JAX and for ONNX, and weights.

run.py            export a run to a folder
parts.py          what is exported: encoder, decoder and sampler as functions
jax_programs.py   programs by jax.export            exported.py   their reader
onnx_programs.py  programs by jax2onnx              primitives.py what it needs of a program
weights.py        safetensors
manifest.py, cards.py   what a folder says of itself
"""
