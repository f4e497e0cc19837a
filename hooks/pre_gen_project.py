"""Refuse answers that can't work, before a file is written: the second line of defence.

The same checks run while Cookiecutter asks (`local_extensions.py`), where a refusal costs the user one
line. Answers from an edited replay file come past that, and meet them here.
"""

import os
import sys

PROBLEM = {{cookiecutter | refusal | literal}}
# Cookiecutter leaves the rendered hook, answers and all, in the temporary folder.
os.remove(__file__)

if PROBLEM:
    sys.exit(PROBLEM)
if os.listdir():
    # Only with --overwrite-if-exists. The other hook must not remove what was here before it.
    with open(".existed-before", "w", encoding="utf-8"):
        pass
