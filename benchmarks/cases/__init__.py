"""Bugs of public projects in their real shape, each with its repaired twin; and deliberate idioms.

Sources name the repository and the issue.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # building blocks are those of the tests' models
