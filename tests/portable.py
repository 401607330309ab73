"""The tests as other machines run them, one setting after the other, and a table of what fell: ``make portable``.

Instruction sets that other processors lack are switched off, the tests' own seeds are moved, and there are one and two
threads. ``python -m tests.portable avx2 -k mega`` takes the settings whose name contains a word, and hands the rest to
pytest. A processor cannot show what it does not have: run it where there is AVX-512, too.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree


class Setting(NamedTuple):
    name: str
    environment: dict[str, str]


# Each library has a switch of its own, and a processor that lacks instructions lacks them for all.
SSE4 = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}

SETTINGS = (
    Setting("SSE4 alone", SSE4),
    Setting("AVX2, as on Zen 3", AVX2),
    Setting("SSE4, seeds moved by 1", SSE4 | {"STORYDALLE_TEST_SEED_SHIFT": "1"}),
    Setting("two threads, seeds moved by 2", {"OMP_NUM_THREADS": "2", "STORYDALLE_TEST_SEED_SHIFT": "2"}),
)
PYTEST = ("-m", "pytest", "-q", "-m", "not slow", "-n", "2", "--dist", "worksteal")


def run(setting: Setting, more: list[str], report: Path) -> tuple[int, list[str], float]:
    """How many tests passed, the names of those that fell, and the seconds that it took."""
    environment = {"OMP_NUM_THREADS": "1", **setting.environment}
    command = [sys.executable, *PYTEST, f"--junitxml={report}", *more]
    begin = time.monotonic()
    ended = subprocess.run(command, env=os.environ | environment, cwd=Path(__file__).parent.parent).returncode
    if not report.is_file():
        return 0, [f"pytest ended with {ended}"], time.monotonic() - begin
    cases = list(ElementTree.parse(report).iter("testcase"))
    fell = [
        f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    if ended not in (0, 1) and not fell:
        fell = [f"pytest ended with {ended}"]
    return len(cases) - len(fell) - skipped, fell, time.monotonic() - begin


def main(arguments: list[str]) -> int:
    cut = next((i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    words, more = arguments[:cut], arguments[cut:]
    lines, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        for number, setting in enumerate(SETTINGS):
            if words and not any(word.lower() in setting.name.lower() for word in words):
                continue
            print(f"\n{setting.name}: {' '.join(f'{key}={value}' for key, value in setting.environment.items())}")
            passed, fell, seconds = run(setting, more, Path(folder) / f"{number}.xml")
            lines.append(f"{setting.name:<36}{passed:>7} passed{len(fell):>5} fell{seconds:>7.0f} s")
            lines += [f"    {name}" for name in fell]
            failed = failed or bool(fell)
    print("\n" + "\n".join(lines))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
