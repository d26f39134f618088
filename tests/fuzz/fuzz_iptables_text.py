"""Coverage-guided fuzzing of the readers of rule text; needs atheris, which the tests do not.

python tests/fuzz/fuzz_iptables_text.py -max_total_time=180 [CORPUS]
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from simnet.errors import InputError
    from simnet.model.iptables.parser import parse_rules
    from simnet.model.iptables.printer import save_text


def one_input(data: bytes) -> None:
    """Rules, or an InputError with a place; anything else is a crash for atheris to keep."""
    text = data.decode("utf-8", "replace")
    try:
        save_text(parse_rules(text, file="fuzz").ruleset, counters=True)
    except InputError as error:
        if not all(problem.where.file == "fuzz" for problem in error.problems):
            raise RuntimeError("a problem without its file") from error


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
