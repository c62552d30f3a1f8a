"""Processes that share a task as those of torchrun do. They are forked, so that none imports torch again."""

import multiprocessing
import os
import socket
from collections.abc import Callable

from accelerate.state import AcceleratorState, PartialState


def run_together(function: Callable, *arguments: object, count: int = 2) -> None:
    """Call a function in `count` processes that know of each other; each must return."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_join, args=(rank, count, port, function, arguments)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count


def _join(rank: int, count: int, port: int, function: Callable, arguments: tuple) -> None:
    """What torchrun tells a process, and the state of one that has used accelerate for nothing yet."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {name: str(number) for name, number in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    function(*arguments)
