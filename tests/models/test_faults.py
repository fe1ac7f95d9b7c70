"""Classification of torch's errors, most of them raised for real."""

import pytest
import torch

from l2v.models.faults import Fault


def test_memory_that_this_machine_does_not_have() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15)
    assert Fault.of(raised.value) is Fault.OUT_OF_MEMORY


def test_an_error_of_the_computation_is_no_more_than_that() -> None:
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
def test_errors_of_devices_that_are_not_here(error: Exception, fault: Fault) -> None:
    assert Fault.of(error) is fault
