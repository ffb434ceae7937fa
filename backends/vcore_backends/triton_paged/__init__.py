"""vcore's own attention kernels, in Triton, over the paged cache."""
