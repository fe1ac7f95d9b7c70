"""No memory leaks from new batch shapes or from rejected requests."""

import gc
import subprocess
import sys
from pathlib import Path

from l2v.app.http.errors import MediaTypeError
from l2v.models import Encoder
from tests.dtypes import AUTO
from tests.serving import LocalServer, wait_for

# Prints the memory in use by malloc, in MiB, after 40 and 119 forward passes, each with a new number of tokens.
PASSES = """
import ctypes
import sys
from l2v.models.settings import ModelSettings
from l2v.models import Input

class Statistics(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ord smb hblks hblkhd usmblks fsmblks uord ford keep".split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Statistics
encoder = ModelSettings(model="demo", dtype=sys.argv[1]).load()
encodings = encoder.tokenize([Input("the cat sits on the mat")] * 120)
for count in range(1, 120):
    encoder.forward(encodings[:count])
    if count in (40, 119):
        print(mallinfo().uord / 2**20)
"""


def test_new_batch_shapes_do_not_leak() -> None:
    for dtype in {"float32", AUTO}:
        command = [sys.executable, "-c", PASSES, dtype]
        run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        before, after = map(float, run.stdout.split())
        assert after < before + 10, dtype


def test_a_rejected_request_is_freed_without_the_garbage_collector(encoder: Encoder) -> None:
    def errors() -> list[object]:
        return [item for item in gc.get_objects() if isinstance(item, MediaTypeError)]

    with LocalServer(encoder) as server:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                assert server.client.post("/embed", content=b"{}").status_code == 415
            wait_for(lambda: not errors(), 5, "all errors to be freed")
        finally:
            gc.enable()
