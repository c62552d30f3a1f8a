"""What became of the tries of a campaign, and their table."""

import resource
import signal
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from hcm_hf.evaluation.tables import markdown_table
from hcm_hf.utils.errors import InputError


LONGEST_SENTENCE = 1500  # of which a path may be a thousand
SECONDS, MEMORY = 20, 2**30  # that a try may take, beyond what the process holds


class TookTooLong(BaseException):
    """A try that did not end."""


@dataclass
class Outcomes:
    """By fault, how many tries were refused in a sentence, were harmless, or failed.

    Attributes:
        refused: the sentences, by fault and without what differs from try to try.
        harmless: how often nothing was lost and nothing was wrong, by fault.
        failures: by fault and place in the code, the first try that failed there and how many more did.
    """

    refused: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    harmless: Counter[str] = field(default_factory=Counter)
    failures: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(dict))

    def record(self, fault: str, attempt: Callable[[], object], tried: object = "", limits: bool = True) -> None:
        """Run one try: it may return, or raise an `InputError` of one sentence; anything else is a failure.

        Without `limits` it may take time and memory, as one may that other processes work for.
        """
        try:
            with limited() if limits else nullcontext():
                attempt()
        except InputError as error:
            sentence = str(error)
            if "\n" in sentence or not sentence.isprintable() or not 10 < len(sentence) < LONGEST_SENTENCE:
                self._fail(fault, "no sentence", f"{tried!r:.3000}\n{sentence!r:.2000}")
            elif "allocate" in sentence or "memory" in sentence.replace("free memory", ""):
                self._fail(fault, "memory", f"{tried!r:.3000}\n{sentence:.2000}")
            else:
                self.refused[fault][" ".join(sentence.split()[-8:])] += 1
        except (Exception, TookTooLong) as error:
            frames = [one for one in traceback.extract_tb(error.__traceback__) if "hcm_hf" in one.filename]
            place = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
            text = "".join(traceback.format_exception(error))[-3000:]
            self._fail(fault, f"{type(error).__name__} at {place}", f"{tried!r:.3000}\n{text}")
        else:
            self.harmless[fault] += 1

    def _fail(self, fault: str, place: str, text: str) -> None:
        self.failures[fault].setdefault(place, []).append(text)

    @property
    def tries(self) -> int:
        """Of all faults together."""
        failed = sum(len(texts) for places in self.failures.values() for texts in places.values())
        return failed + self.harmless.total() + sum(one.total() for one in self.refused.values())

    def table(self) -> str:
        """Fault, tries, survived, what a user sees; below it the first failure of each kind."""
        lines = []
        for fault in dict.fromkeys((*self.refused, *self.harmless, *self.failures)):
            refused, harmless = self.refused[fault].total(), self.harmless[fault]
            failed = sum(map(len, self.failures[fault].values()))
            seen = [f"nothing ({harmless})"] if harmless else []
            if refused:
                usual, count = self.refused[fault].most_common(1)[0]
                seen.append(f'one sentence ({refused}; most often "... {usual}", {count})')
            if failed:
                seen.append(f"FAILED ({failed}): " + ", ".join(self.failures[fault]))
            lines.append([fault, str(refused + harmless + failed), str(refused + harmless), "; ".join(seen)])
        parts = [markdown_table(["fault", "tries", "survived", "what a user sees"], lines), f"{self.tries} tries."]
        for fault, places in self.failures.items():
            parts += [f"--- {fault}: {place} ({len(texts)})\n{texts[0]}" for place, texts in places.items()]
        return "\n\n".join(parts)

    def check(self) -> None:
        """Raise an `AssertionError` that shows what failed."""
        assert not any(self.failures.values()), self.table()


@contextmanager
def limited(seconds: int = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Let the block take so long, and so much more memory than the process holds."""
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)

    def stop(number: int, frame: object) -> None:
        raise TookTooLong

    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (held + memory, before[1]))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)
