"""Run a snippet of Python in a process of its own, with numpy's vector instructions on or off.

numpy reads NPY_DISABLE_CPU_FEATURES when it is imported, so a test of "the same bytes on every processor"
needs processes. Which features can be switched off differs by machine and numpy release: numpy itself is
asked.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np


def vector_features_found() -> list[str]:
    """Return the features above its baseline that numpy uses on this machine, e.g. ['X86_V3', 'X86_V4']."""
    return list(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))  # type: ignore[index]


def printed_by(snippet: str, *, without_features: list[str]) -> str:
    """Return what the snippet prints when numpy may not use the given features."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NPY_")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    if without_features:
        environment["NPY_DISABLE_CPU_FEATURES"] = " ".join(without_features)
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
