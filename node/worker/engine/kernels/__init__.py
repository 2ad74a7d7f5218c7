"""The native kernels: C, what compiles it, and what calls it."""
