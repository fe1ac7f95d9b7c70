"""The dtypes that this machine supports, and the precision that README.md promises for each."""

import torch

from l2v.models.devices import computes_bfloat16
from l2v.models.quantization.int8 import available

_CPU = torch.device("cpu")
# What `--dtype auto` selects on this machine.
AUTO = "bfloat16" if computes_bfloat16(_CPU) else "float32"
# Minimum cosine of two vectors of the same text: alone, in a batch, under load, after a restart.
MIN_COSINE = {"float32": 0.999999, "bfloat16": 0.9999, "float16": 0.9999}
if available(_CPU):
    # Differences in bfloat16's last bits can change an int8 value by one: the worst of 1,000 texts has 0.999.
    MIN_COSINE["int8"] = 0.998
