"""The dtypes that this machine computes in, and what README.md promises of each."""

import torch

from l2v.models.int8 import available
from l2v.models.loading import computes_bfloat16

_CPU = torch.device("cpu")
# What `--dtype auto` is here.
AUTO = "bfloat16" if computes_bfloat16(_CPU) else "float32"
# Least cosine of two vectors of the same text: alone, in a batch, under load, after a restart.
LEAST = {"float32": 0.999999, "bfloat16": 0.9999, "float16": 0.9999}
if available(_CPU):
    # bfloat16's last bits move values over the edge between two integers: the worst of 1,000 texts is at 0.999.
    LEAST["int8"] = 0.998
