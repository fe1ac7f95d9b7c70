"""Classification of torch's errors."""

import pytest
import torch

from l2v.models.faults import Fault


def test_an_impossible_allocation_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15)
    assert Fault.of(raised.value) is Fault.OUT_OF_MEMORY


def test_other_errors_of_a_computation_are_plain_errors() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert Fault.of(raised.value) is Fault.ERROR


# All forms in which libraries report that memory is short. None of them means that the device is lost.
OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        *((error, Fault.OUT_OF_MEMORY) for error in OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul`"), Fault.ERROR),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), Fault.DEVICE_LOST),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), Fault.DEVICE_LOST),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Fault.DEVICE_LOST),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), Fault.DEVICE_LOST),
        (KeyError("CUDA"), Fault.ERROR),
    ],
)
def test_errors_of_gpus(error: Exception, fault: Fault) -> None:
    assert Fault.of(error) is fault
