"""Fused kernels in Triton, which stand in for the references of `vcore.ops` on CUDA devices.

Each module's functions take and return what the reference of the same name does. Nothing imports them but
`vcore.ops.dispatch`, when a CUDA tensor first comes by.
"""
