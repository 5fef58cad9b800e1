"""Memory that is kept for reuse. New processes measure it, because malloc is set up for a whole process."""

import os
import platform
import subprocess
import sys

import pytest

from lab.compute import allocator
from lab.training.loop import train
from settings.paths import ROOT
from tests.helpers.small_trainings import new_run

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library has mallopt")

MB = 1_000_000
PROGRAM = f"""
import psutil
from lab.compute.allocator import freed_memory_kept, keep_freed_memory

size = 100 * {MB}

def still_there():
    before = psutil.Process().memory_info().rss
    b"x" * size
    return round((psutil.Process().memory_info().rss - before) / {MB})
"""


def printed(code: str, **variables: str) -> list[int]:
    """The numbers that PROGRAM and this code print in a new process with these environment variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + code], cwd=ROOT, env=environment | variables, capture_output=True, text=True,
        check=True,
    )
    return [int(word) for word in done.stdout.split()]


def test_freed_memory_is_kept_inside_and_given_back_at_the_end():
    before, inside, nested, ended, after = printed("""
start = psutil.Process().memory_info().rss
print(still_there())
with freed_memory_kept():
    print(still_there())
    with freed_memory_kept():
        pass
    print(round((psutil.Process().memory_info().rss - start) / 1e6))
print(round((psutil.Process().memory_info().rss - start) / 1e6))
print(still_there())
""")
    assert before < 5
    assert 95 < inside < 110
    assert 95 < nested < 110  # a context that ends inside another one gives nothing back
    assert ended < 10
    assert after < 5


def test_a_process_that_keeps_its_memory_uses_it_again():
    [faults] = printed("""
import resource
keep_freed_memory()
for _ in range(3):
    still_there()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    still_there()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
""")
    assert faults < 1_000  # one block of 100 MB has 24,000 pages


@pytest.mark.parametrize(
    "variable", [{"MALLOC_MMAP_THRESHOLD_": "65536"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}]
)
def test_what_the_user_set_up_stays(variable):
    assert printed("keep_freed_memory(); print(still_there())", **variable)[0] < 5


def test_a_training_keeps_memory_from_its_start_to_its_end(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(allocator, "_users", 0)  # others in this process may keep memory, like an earlier test's bench
    monkeypatch.setattr(allocator, "set_malloc", told.append)
    steps = train(new_run(tmp_path))
    next(steps)
    assert told == [allocator.KEPT]
    steps.close()  # as when its loop is left
    assert told == [allocator.KEPT, allocator.USUAL]
