"""What is held in memory, for tests of methods that promise to hold little."""

from __future__ import annotations

import gc

import torch
from torch import Tensor


def held_bytes() -> int:
    """Bytes of all plain tensors that are alive, each storage counted once."""
    sizes = {}
    for thing in gc.get_objects():
        if type(thing) is not Tensor or thing.layout is not torch.strided:
            continue
        try:
            storage = thing.untyped_storage()
        except NotImplementedError:  # a wrapper of torch.func that outlived its transform
            continue
        sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())
