"""Have every .py file of this interpreter's standard library indexed, and print a report."""

import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

from tasks import FileIndex, index_file


def source_files() -> list[str]:
    library = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages"}
    return [str(path) for path in sorted(library.rglob("*.py")) if not skipped & set(path.parts)]


def main() -> None:
    paths = source_files()[: int(sys.argv[1]) if sys.argv[1:] else None]
    began = time.monotonic()
    handles = index_file.delay_many(paths)
    answers = [handle.get(timeout=300, propagate=False) for handle in handles]
    seconds = time.monotonic() - began

    files = [answer for answer in answers if isinstance(answer, FileIndex)]
    errors = Counter(answer.type for answer in answers if not isinstance(answer, FileIndex))
    library = sysconfig.get_path("stdlib")
    print(f"{len(paths):,} files of {library} in {seconds:.1f} s, {len(paths) / seconds:,.0f} files a second")
    print(f"{sum(f.lines for f in files):,} lines, {sum(f.classes for f in files):,} classes, "
          f"{sum(f.functions for f in files):,} functions")  # fmt: skip
    print(f"{sum(errors.values())} could not be read: {dict(errors)}")
    print("\nlongest functions")
    for file in sorted(files, key=lambda f: f.longest_lines, reverse=True)[:10]:
        print(f"{file.longest_lines:6,} lines  {file.longest:30}  {Path(file.path).relative_to(library)}")


if __name__ == "__main__":
    main()
