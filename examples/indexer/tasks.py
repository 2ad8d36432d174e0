"""Index Python source files: what each defines, and how many lines it has. CPU-bound, on real files.

taskq worker -A tasks        # here, in this folder
python run.py                # in another terminal
"""

import ast
import tokenize
from dataclasses import dataclass

from taskq import TaskQ

app = TaskQ("indexer")


@dataclass
class FileIndex:
    path: str
    lines: int
    classes: int
    functions: int
    longest: str  # the name of the longest function
    longest_lines: int


# A file that does not parse is a failure to report, not to keep: no dead letters.
@app.task(dead_letter=False)
def index_file(path: str) -> FileIndex:
    with tokenize.open(path) as file:  # reads the encoding that the file declares
        source = file.read()
    functions, classes = [], 0
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.append(((node.end_lineno or node.lineno) - node.lineno + 1, node.name))
        classes += isinstance(node, ast.ClassDef)
    longest_lines, longest = max(functions, default=(0, ""))
    return FileIndex(path, len(source.splitlines()), classes, len(functions), longest, longest_lines)
