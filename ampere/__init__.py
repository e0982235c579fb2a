"""One vector space for product pages, short videos and live-stream clips."""

import os

# torch takes huge pages for large tensors of the CPU, which are new memory in every step: the full-size network's
# forward pass on two cores waits a sixth of its time for small ones. It reads this at the first such tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
