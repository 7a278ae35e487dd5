"""Runs examples/own_loop.py as it is, with save intervals, workers that persist, and time for a signal to come."""

import functools
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import own_loop

wanted = json.loads(sys.argv[1])
own_loop.Guard = functools.partial(own_loop.Guard, **wanted.get("guard", {}))
own_loop.DataLoader = functools.partial(torch.utils.data.DataLoader, **wanted.get("loader", {}))
own_step = own_loop.train_step
count = 0


def train_step(*arguments):
    global count
    count += 1
    if count == wanted.get("say_at"):
        print("NOW", flush=True)
        time.sleep(0.5)
    return own_step(*arguments)


own_loop.train_step = train_step
# A tail that lasts: the print is the last thing in it.
if "say_in_tail" in wanted:
    own_print = print

    def slow_print(text):
        own_print(text)
        if text.startswith(f"epoch {wanted['say_in_tail']}:"):
            own_print("NOW", flush=True)
            time.sleep(0.5)

    own_loop.print = slow_print

if __name__ == "__main__":  # a spawned worker imports this file
    own_loop.main(wanted["folder"], wanted["epochs"], wanted["workers"])
