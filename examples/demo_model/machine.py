"""What the machine that makes the built-in model computes in."""

import torch

from l2v.models.loading import computes_bfloat16

# Half the time of float32, where the machine has it.
BFLOAT16 = computes_bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
