"""What a suite says: a line a check with its figure, and the counts at the end."""

import sys
import time


class Report:
    """Counts and prints checks."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.start = time.monotonic()

    def check(self, ok, words, figure=""):
        """One check: what should be so, and what was measured."""
        if ok:
            self.passed += 1
        else:
            self.failed += 1
        figure = f": {figure}" if figure != "" else ""
        print(f"  {'ok    ' if ok else 'FAILED'} {words}{figure}")
        sys.stdout.flush()
        return bool(ok)

    def equal(self, got, wanted, words):
        """A check of equality; the figure is what came."""
        figure = got if got == wanted else f"{got!r}, not {wanted!r}"
        return self.check(got == wanted, words, figure)

    def note(self, words):
        """Something measured that is no check."""
        print(f"         {words}")
        sys.stdout.flush()

    def skip(self, words, why):
        """A check that cannot be made here."""
        self.skipped += 1
        print(f"  skip   {words}: {why}")

    def close(self):
        """The closing line; the exit status."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        print(f"{self.passed} passed, {self.failed} failed{skipped}")
        return 1 if self.failed or not (self.passed or self.skipped) else 0


def median(values):
    """The middle one."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else float("nan")
