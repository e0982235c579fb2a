"""Runs a function on several gloo ranks and collects the results."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Ranks are forked from a process that has imported the slow modules and done nothing else.
multiprocessing.set_forkserver_preload(["ampere.training.loop"])


def run_on_ranks(worker: Callable[..., Any], folder: Path, *args: Any, ranks: int = 2) -> list[Any]:
    """Call `worker(rank, *args)` on every rank and return the results by rank.

    Results are tensors, dicts and lists.
    """
    mp.start_processes(
        _enter, args=(worker, folder, ranks, args), nprocs=ranks, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(ranks)]


def _enter(
    rank: int, worker: Callable[..., Any], folder: Path, ranks: int, args: tuple[Any, ...]
) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=ranks
    )
    torch.save(worker(rank, *args), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    # Under load, gloo's threads sometimes abort the process while the interpreter shuts down.
    os._exit(0)
