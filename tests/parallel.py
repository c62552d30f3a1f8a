"""Two processes that train together, forked off a test's own: what they need is imported already."""

import multiprocessing
import os
import tempfile
import traceback

import pytest
import torch
from accelerate.state import AcceleratorState


needs_a_fork = pytest.mark.skipif(
    torch.accelerator.is_available(), reason="a process that holds an accelerator cannot be forked"
)


def in_two_processes(function, *arguments):
    """Call a function in each of two processes, as `torchrun` starts them; an error in one is one here."""
    context = multiprocessing.get_context("fork")
    errors = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_join, args=(rank, folder, errors, function, arguments)) for rank in (0, 1)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            process.kill()
    assert errors.empty(), errors.get()
    assert [process.exitcode for process in processes] == [0, 0]


def _join(rank, folder, errors, function, arguments):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    AcceleratorState._reset_state(reset_partial_state=True)  # that of the test's own process
    try:
        store = torch.distributed.FileStore(f"{folder}/store", 2)
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
        function(*arguments)
        torch.distributed.destroy_process_group()
    except BaseException:
        errors.put(traceback.format_exc())
        raise
