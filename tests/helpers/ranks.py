"""Runs a function in several gloo processes and collects what each returns."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Ranks are forked from one process that has imported what takes seconds, and done nothing else.
multiprocessing.set_forkserver_preload(["ampere.training.loop"])


def run_on_ranks(worker: Callable[..., Any], folder: Path, *args: Any, ranks: int = 2) -> list[Any]:
    """Call `worker(rank, *args)` on every rank; a list of the results (tensors in dicts and lists), by rank."""
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
    # Under load, threads of gloo that still run when the interpreter tears down abort the process now and then.
    os._exit(0)
