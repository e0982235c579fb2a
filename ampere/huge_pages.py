"""Huge memory pages for torch's large CPU tensors, and for vectors that are searched."""

import os

# For the environment of a process that holds an index. A search in a graph of a million vectors
# reads all over their memory; with pages of 2 MiB it takes a fifth less time. glibc reads the
# variable at the start of the process.
INDEX_ENV = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def use_huge_pages() -> None:
    """Let torch allocate large CPU tensors in 2 MiB pages, unless the user has chosen otherwise.

    Activations are new memory in every step. With 4 KiB pages, a forward pass of the full-size
    network on two cores waits a sixth of its time for page faults. torch reads the variable at its
    first CPU allocation, so call this before any tensor exists. Child processes inherit it, as do
    the workers of a local Ray that this process starts; workers of a cluster call it themselves.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
