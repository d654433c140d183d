"""Estimates before money is spent: a model's weights, its KV cache, and the GPU memory that it needs."""
