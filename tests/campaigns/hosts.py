"""Two hosts that train and generate together, and one of which is lost.

The hosts are network namespaces of this machine, joined by a virtual cable; making them needs the rights of root. They
share this machine's files, as the hosts of a cluster share theirs.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from campaigns.outcomes import Outcomes
from campaigns.work import WORKS, make_inputs


_SCRIPTS = Path(__file__).parents[2] / "scripts"
_ADDRESSES = ("10.77.0.1", "10.77.0.2")
_PORT = "29577"
_STEPS = 12  # of a training: four epochs of the inputs' slices
_SECONDS = 600  # torchrun waits five minutes for a host that is lost


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Make two network namespaces that reach each other; yield their names.

    Raises:
        SystemExit: if this process may not.
    """
    first, second = names = (f"hcm-{os.getpid()}-0", f"hcm-{os.getpid()}-1")
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns", second)
        for name, address in zip(names, _ADDRESSES, strict=True):
            _ip("-netns", name, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-netns", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            lose(name)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"Two hosts cannot be made here, as root can with iproute2: {error}") from error


def lose(host: str) -> None:
    """Kill all that runs on a host."""
    found = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True).stdout
    for process in found.split():
        os.kill(int(process), signal.SIGKILL)


def torchrun(host: int) -> list[str]:
    """How a host starts its process with torchrun."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"),
        *("--node_rank", str(host), "--master_addr", _ADDRESSES[0], "--master_port", _PORT),
    ]


def accelerate(host: int) -> list[str]:
    """How a host starts its process with `accelerate launch`."""
    return [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "2"),
        *("--num_processes", "2", "--machine_rank", str(host), "--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--main_process_ip", _ADDRESSES[0], "--main_process_port", _PORT),
    ]


def ranks(host: int) -> list[str]:
    """How a scheduler starts a host's process, without a launcher: `docs/how-to/cluster.md`."""
    known = {"RANK": host, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": _ADDRESSES[0], "MASTER_PORT": _PORT}
    return ["env", *(f"{name}={value}" for name, value in known.items()), sys.executable]


LAUNCHERS = {"torchrun": torchrun, "accelerate launch": accelerate, "ranks of a scheduler": ranks}
_ONE_HOST = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]


def start(words: Sequence[str], host: str | None = None) -> subprocess.Popen:
    """Start a command on a host; on CPUs, over the cable."""
    variables = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    variables |= {"GLOO_SOCKET_IFNAME": "eth0"} if host else {}
    within = ["ip", "netns", "exec", host] if host else []
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen([*within, *words], env=os.environ | variables, text=True, **pipes)


def hosts(folder: Path, outcomes: Outcomes, tries: int = 2, random_seed: int = 0) -> None:
    """Train and generate on two hosts, and lose one of them at random moments.

    Args:
        folder: an empty one to work in.
        outcomes: get what becomes of the tries.
        tries: of losing a host.
        random_seed: of the moments.
    """
    with two_hosts():  # or there is nothing to do
        pass
    source = random.Random(random_seed)
    inputs = make_inputs(folder / "inputs")

    def training(place: str, num_steps: int, batch_size: int = 4) -> list[str]:
        return [
            *(str(_SCRIPTS / "train.py"), "--family", "gan", "--dataset", str(inputs / "dataset")),
            *("--output_dir", str(folder / place / "run"), "--train_batch_size", str(batch_size)),
            *("--num_steps", str(num_steps), "--checkpointing_epochs", "1", "--sample_epochs", "100"),
        ]

    def together(command: Sequence[str], launcher: str = "torchrun") -> None:
        with two_hosts() as names:
            processes = [start([*LAUNCHERS[launcher](i), *command], name) for i, name in enumerate(names)]
            for process in processes:
                _finish(process)

    def first_losses(place: str) -> dict:
        return json.loads((folder / place / "run" / "metrics.jsonl").read_text().split("\n")[0])

    def begins_as_one_process(launcher: str) -> None:
        together(training(launcher, _STEPS), launcher)
        assert first_losses(launcher) == pytest.approx(first_losses("one"), rel=1e-4)

    def goes_on_bit_by_bit() -> None:
        for num_steps in (_STEPS // 2, _STEPS):
            together(training("halves", num_steps))
        _same(folder / "halves", folder / "torchrun")

    def outlives_a_host(place: str, fraction: float, again_on_two: bool) -> None:
        run = folder / place / "run"
        with two_hosts() as names:
            processes = [start([*torchrun(i), *training(place, 10**6)], name) for i, name in enumerate(names)]
            while not (run / "last").exists() and all(process.poll() is None for process in processes):
                time.sleep(0.1)
            time.sleep(fraction)
            lose(names[1])
            for process in processes:
                process.communicate(timeout=_SECONDS)
            assert processes[0].returncode, "a host ends well though the other one is lost"
        before = _steps(run)
        command = training(place, before + 3)
        if again_on_two:
            together(command)
        else:
            _finish(start([*_ONE_HOST, *command]))
        assert _steps(run) == before + 3
        whole = f"{place}-whole"
        _finish(start([*_ONE_HOST, *training(whole, before + 3)]))
        _same(folder / place, folder / whole)

    def makes_the_same_images() -> None:
        words = [str(_SCRIPTS / "generate.py"), "--model", str(inputs / "trained" / "run"), "--num_images", "24"]
        for place, run in (("images-two", together), ("images-one", lambda command: _finish(start(_python(command))))):
            run([*words, "--output_dir", str(folder / place / "images")])
        found, expected = (WORKS["generate"].result(folder / place) for place in ("images-two", "images-one"))
        pictures = {name for name in expected if name.endswith(".png")}
        assert len(pictures) == 24 and all(found[name] == expected[name] for name in pictures)

    _finish(start(_python(training("one", 1, batch_size=8))))
    for launcher in LAUNCHERS:
        outcomes.record(f"two hosts by {launcher}", lambda name=launcher: begins_as_one_process(name), limits=False)
    outcomes.record("two hosts, stopped and run again", goes_on_bit_by_bit, limits=False)
    outcomes.record("two hosts generate", makes_the_same_images, limits=False)
    for number in range(tries):
        for again_on_two in (False, True):
            seconds, place = source.uniform(0, 3), f"lost-{number}-{again_on_two}"
            outcomes.record(
                f"a host is lost, {'two' if again_on_two else 'one'} go on",
                lambda place=place, seconds=seconds, two=again_on_two: outlives_a_host(place, seconds, two),
                seconds,
                limits=False,
            )


def _python(command: Sequence[str]) -> list[str]:
    return [sys.executable, *command]


def _finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=_SECONDS)
    assert process.returncode == 0, errors[-2000:]


def _steps(run: Path) -> int:
    """The last step that is logged."""
    return max(json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines())


def _same(one: Path, other: Path) -> None:
    found, expected = (WORKS["train"].result(place) for place in (one, other))
    differing = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    assert not differing, f"{differing} differ"
