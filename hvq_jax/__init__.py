"""Hybrid-latent VQ-VAEs in JAX: pure functions for the latents, the codebook, the losses and the priors."""
