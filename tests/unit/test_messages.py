"""One place prints, and one line is one argument of it: no message is put together with line ends of its own."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src/ganguard"
# What is written into files, or drawn: line ends there are no terminal's.
NOT_PRINTED = {
    "data/arrays.py",
    "data/attributes.py",
    "data/cache.py",
    "data/images.py",
    "data/opening.py",
    "data/sources.py",
    "errors.py",  # joins the lines that it was given
    "networks/best_files.py",
    "reports/curves.py",
    "reports/journal.py",
    "store/envelope.py",
}
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("module", [module for module in MODULES if module not in NOT_PRINTED])
def test_no_message_holds_a_line_end(module):
    """Names within a message could add lines of their own; ``GanguardError`` and ``say_all`` take lines."""
    tree = ast.parse((SOURCE / module).read_text(encoding="utf-8"))
    joined = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.JoinedStr) and any("\n" in str(getattr(v, "value", "")) for v in node.values))
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join"
            and isinstance(node.func.value, ast.Constant) and "\n" in str(node.func.value.value))
    ]  # fmt: skip
    assert joined == [], f"{module}: give the lines one by one"


def test_one_place_prints():
    printing = {
        module
        for module in MODULES
        for node in ast.walk(ast.parse((SOURCE / module).read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "print"
    }
    assert printing == {"reports/console.py"}
