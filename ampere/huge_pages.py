"""Huge memory pages for torch's large CPU tensors."""

import os


def use_huge_pages() -> None:
    """Let torch allocate large CPU tensors in 2 MiB pages, unless the user has chosen otherwise.

    Activations are new memory in every step. With 4 KiB pages, a forward pass of the full-size
    network on two cores waits a sixth of its time for page faults. torch reads the variable at its
    first CPU allocation, so call this before any tensor exists. Child processes inherit it, as do
    the workers of a local Ray that this process starts; workers of a cluster call it themselves.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
