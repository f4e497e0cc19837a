"""Start a command in many processes at once and wait for all: together.py NUMBER COMMAND..."""

import subprocess
import sys

processes = [
    subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(int(sys.argv[1]))
]
sys.exit(max(process.wait() for process in processes))
