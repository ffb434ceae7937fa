"""vcore's own kernels for multi-head latent attention, in Triton."""
