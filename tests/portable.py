"""The tests as other machines run them, one setting after the other, and a table of what fell: ``make portable``.

Instruction sets that a processor lacks are switched off, the tests' own seeds are moved, and what trains runs with two
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

TRAINED = "train or learn or overfit or resume or recipe or move or fit or equal or same"  # names of tests


class Setting(NamedTuple):
    name: str
    environment: dict[str, str]
    options: tuple[str, ...] = ("-n", "2", "--dist", "worksteal")


SETTINGS = (
    Setting("torch without vector instructions", {"ATEN_CPU_CAPABILITY": "default"}),
    Setting("torch with AVX2", {"ATEN_CPU_CAPABILITY": "avx2"}),
    Setting("oneDNN with SSE4.1", {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    Setting("oneDNN with AVX2", {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    Setting("all with AVX2, as on Zen 3", {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
    Setting("seeds moved by 1", {"STORYDALLE_TEST_SEED_SHIFT": "1"}),
    Setting("seeds moved by 2", {"STORYDALLE_TEST_SEED_SHIFT": "2"}),
    Setting("two threads", {"OMP_NUM_THREADS": "2"}, ("-k", TRAINED)),
)


def run(setting: Setting, more: list[str], report: Path) -> tuple[int, list[str], float]:
    """How many tests passed, the names of those that fell, and the seconds that it took."""
    environment = {"OMP_NUM_THREADS": "1", **setting.environment}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", f"--junitxml={report}", *setting.options, *more]
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
