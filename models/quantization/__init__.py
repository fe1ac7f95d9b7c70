"""Linear layers in 8 bits (W8A8): int8 on CPUs, fp8 on GPUs.

Weights have one scale per output channel, computed once while loading. Activations have one scale per token, computed
for each batch.
"""
