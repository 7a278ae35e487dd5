"""Ctrl+Break, or a closed window, for a python.exe of this Wine:  winpy press.py break|close PID (os.getpid() there)"""

import sys

import sitecustomize

sitecustomize.press(int(sys.argv[2]), sys.argv[1])
