"""The dtype in which this machine trains the built-in model."""

import torch

from l2v.models.devices import computes_bfloat16

# Whether to train in bfloat16, which takes half the time of float32 on machines that support it.
BFLOAT16 = computes_bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
