"""What a failed forward pass says about the device: whether to try again with less, or to give it up."""

from enum import StrEnum

import torch

# Not every version raises these as classes of their own.
_MEMORY_WORDS = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_LOST_WORDS = ("CUDA error", "CUDA driver error", "HIP error", "CUDNN_STATUS_EXECUTION_FAILED", "Triton Error [CUDA]")
# What a library refuses before it asks the device for anything, though in the words of a lost one.
_REFUSED_WORDS = ("CUBLAS_STATUS_NOT_SUPPORTED", "CUBLAS_STATUS_INVALID_VALUE")


class Fault(StrEnum):
    """Kinds of failure of a forward pass; the values are those of the metric `l2v_batches_total`."""

    ERROR = "error"
    OUT_OF_MEMORY = "out_of_memory"
    DEVICE_LOST = "device_lost"

    @classmethod
    def of(cls, error: Exception) -> "Fault":
        """The kind of an error.

        Memory comes first: CUDA tells of it in the words of a lost device too, but goes on working. After any other
        error of CUDA its context is lost, and every later call of the process fails.
        """
        message = str(error)
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in message for word in _MEMORY_WORDS):
            return cls.OUT_OF_MEMORY
        if any(word in message for word in _REFUSED_WORDS):
            return cls.ERROR
        if isinstance(error, torch.AcceleratorError) or any(word in message for word in _LOST_WORDS):
            return cls.DEVICE_LOST
        return cls.ERROR
