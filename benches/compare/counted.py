"""Counts what worked. In a quick run, which is a test, a failure does not stop the rest, and the sum stands on the last line."""

import contextlib
import sys


class Counted:
    def __init__(self, quick):
        self.quick, self.passed, self.failed = quick, 0, 0

    @contextlib.contextmanager
    def __call__(self, what):
        try:
            yield
        except Exception as error:
            if not self.quick:
                raise
            self.failed += 1
            print(f"FAILED {what}: {type(error).__name__}: {error} {' '.join(getattr(error, '__notes__', []))}", flush=True)
        else:
            self.passed += 1

    def finish(self):
        if self.quick:
            print(f"{self.passed} passed, {self.failed} failed")
            sys.exit(self.failed > 0 or self.passed == 0)
