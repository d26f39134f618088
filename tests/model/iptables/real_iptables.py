"""A real iptables in a network namespace of its own, for tests that ask it what it prints."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest


def run_in_fresh_namespace(script: str, text: str, *, ipsets: list[str] | None = None) -> str:
    """Return what a shell script prints for `text` on its stdin; skips the test if this machine has no such tools."""
    for tool in ("unshare", "iptables-nft-restore", *(["ipset"] if ipsets else [])):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    create = "".join(f"ipset create '{name}' hash:ip &&\n" for name in ipsets or [])
    done = subprocess.run(["unshare", "-n", "sh", "-c", create + script], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ipsets_in(text: str) -> list[str]:
    """The sets that rules name."""
    return sorted(set(re.findall(r"--match-set (\S+)", text)))


def without_comments(text: str) -> list[str]:
    """The lines that are not comments."""
    return [line for line in text.splitlines() if not line.startswith("#")]
