"""`python -m tests.clients`: build each client of examples/clients, and hold what it prints against Python's answers.

Those whose toolchain this machine lacks are left out, by name; one that is asked for by name must be there, and `all`
asks for every one.
"""

import argparse
import sys
import time

from tests.clients.comparing import DifferenceError, compare, compare_attempts
from tests.clients.expected import expected
from tests.clients.languages import LANGUAGES, Language
from tests.clients.programs import ProgramError, answers, build
from tests.clients.service import AWAY, Service, service

ALL = "all"


def main() -> None:
    options = _options()
    if options.missing_packages:
        sys.stdout.writelines(f"{package}\n" for package in _missing_packages())
        return
    sys.exit(not _check(options.names))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    known = [*(language.name for language in LANGUAGES), ALL]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(known)}; all that are here unless named")
    parser.add_argument("--missing-packages", action="store_true", help="print what Debian has of toolchains not here")
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    return options


def _missing_packages() -> list[str]:
    without = [language for language in LANGUAGES if language.missing() is not None]
    return sorted({package for language in without for package in language.debian_packages})


def _check(names: list[str]) -> bool:
    """Whether all of these are there and as in Python; or all that are there, where none is named."""
    chosen = [language for language in LANGUAGES if not names or {language.name, ALL} & set(names)]
    present = [language for language in chosen if _is_present(language)]
    with service() as running:
        wanted = expected(running.stubs, AWAY)
        num_passed = sum(_passes(language, running, wanted) for language in present)
    num_left_out = len(chosen) - len(present)
    num_failed = len(present) - num_passed + (num_left_out if names else 0)
    print(f"clients: {num_passed} passed, {num_failed} failed, {0 if names else num_left_out} skipped")
    return num_failed == 0


def _is_present(language: Language) -> bool:
    missing = language.missing()
    if missing is not None:
        print(f"{language.name}: left out, since this fails: {missing}\n  {language.install}")
    return missing is None


def _passes(language: Language, running: Service, wanted: list[dict]) -> bool:
    started_s = time.monotonic()
    try:
        build(language)
        built_s = time.monotonic()
        num_before = len(running.refused_at_s())
        compare(answers(language, running.address, AWAY), wanted)
        compare_attempts(running.refused_at_s()[num_before:], retry_s=wanted[-1]["retry_s"])
    except (ProgramError, DifferenceError) as error:
        print(f"{language.name}: FAILED\n{error}")
        return False
    took = f"built in {built_s - started_s:.0f} s, ran {time.monotonic() - built_s:.0f} s"
    print(f"{language.name}: as in Python, {len(wanted)} lines ({took})")
    return True


if __name__ == "__main__":
    main()
