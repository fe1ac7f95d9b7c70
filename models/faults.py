"""Classification of a failed forward pass: retry with a smaller batch, fail the input, or restart the process."""

import re
from enum import StrEnum

import torch

# Many errors about memory are plain RuntimeErrors, so the message has to be searched. cuBLAS, cuDNN and similar
# libraries allocate their own memory. If too little is left for a handle, they report that they are not initialized.
_MEMORY = re.compile(
    r"out of memory|(can't allocate|not enough) memory|_STATUS_(ALLOC_FAILED|NOT_INITIALIZED|\w*ALLOCATION_FAILED)"
)
_LOST_WORDS = ("CUDA error", "CUDA driver error", "HIP error", "CUDNN_STATUS_EXECUTION_FAILED", "Triton Error [CUDA]")
# A library raises these errors before it starts work on the device, so the device is not lost, although the messages
# begin like those of a lost device.
_REFUSED_WORDS = ("CUBLAS_STATUS_NOT_SUPPORTED", "CUBLAS_STATUS_INVALID_VALUE")


class Fault(StrEnum):
    """Kinds of failure of a forward pass. Their values are label values of the metric `l2v_batches_total`."""

    ERROR = "error"
    OUT_OF_MEMORY = "out_of_memory"
    DEVICE_LOST = "device_lost"

    @classmethod
    def of(cls, error: Exception) -> "Fault":
        """Classifies an error.

        Lack of memory is checked first: CUDA reports it in the same words as a lost device, but the device is still
        usable. After any other CUDA error except those in `_REFUSED_WORDS`, the CUDA context is lost, and every later
        CUDA call of the process fails.
        """
        message = str(error)
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or _MEMORY.search(message):
            return cls.OUT_OF_MEMORY
        if any(word in message for word in _REFUSED_WORDS):
            return cls.ERROR
        if isinstance(error, torch.AcceleratorError) or any(word in message for word in _LOST_WORDS):
            return cls.DEVICE_LOST
        return cls.ERROR
