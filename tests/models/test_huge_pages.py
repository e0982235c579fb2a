"""Large tensors are allocated in huge pages."""

import subprocess
import sys
from pathlib import Path

import pytest

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SIZE = 64 << 20  # bytes; 16,384 pages of 4 KiB
PROGRAM = f"""
import resource
import torch
from ampere.huge_pages import use_huge_pages
use_huge_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.zeros({SIZE}, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(),
    reason="the kernel has no huge pages",
)
def test_large_tensor_causes_few_page_faults() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(result.stdout) < SIZE / 4096 / 2
