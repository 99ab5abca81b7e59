'''The text of a reproduction: a short script that needs this library only where the subject's own file does.

`calls` here applies the plain conventions of `Subject`: the first of a packed result is the array, the second
the log-det; a log-det of one number holds for all rows; further axes are summed. Where a subject needs more than that,
the script does not show the violation, `reproduce` notices, and writes a script that re-runs the check instead.
'''

HEAD = '''\
"""{title}

{claim}
Found: {found}
Run it with Python. Exit status 1: the claim is still violated; 0: it holds.
"""
'''

STANDALONE = '''\
from __future__ import annotations

import importlib.util
import math
import random
import sys
import types
from pathlib import Path

import numpy as np
{imports}
HERE, SEED = Path(__file__).resolve().parent, {seed!r}


def start(seed):
    random.seed(seed), np.random.seed(seed % 2**32){seed_torch}


{load}

def call(function, part=0):  # host arrays in and out
    def run(x, seed=SEED):
        start(seed)
        out = function({native})
        out = out[part] if isinstance(out, (tuple, list)) else out
        out = out[0] if isinstance(out, (tuple, list)) else out
        return {host}

    return run


{per_row}def calls_of(subject):
{mode}    return types.SimpleNamespace(subject=subject, {calls})


{measure}

{inputs}

if __name__ == "__main__":
    value, bound = {function}(calls_of(load()), **INPUTS)
    print(f"value {{value!r}}, bound {{bound!r}}:", "holds" if value <= bound else "violated")
    sys.exit(not value <= bound)
'''

PER_ROW = '''\
def per_row(run):  # a log-det of any shape as (batch,)
    def total(x, seed=SEED):
        out = np.asarray(run(x, seed), np.float64)
        return np.full(len(x), out.item()) if out.size == 1 else out.reshape(len(x), -1).sum(1)

    return total


'''

FROM_FILE = '''\
def load():
    if importlib.util.find_spec("iresnet_verify") is None:  # without the library a Subject is a plain record
        sys.modules["iresnet_verify"] = types.SimpleNamespace(Subject=types.SimpleNamespace)
    file = {file}
    places = [Path(p) for p in sys.argv[1:] if __name__ == "__main__"] + [file, Path(file.name), HERE / file.name]
    file = next((p for p in places if p.is_file()), None)
    if file is None:
        print("the subject's file is at none of", *map(str, places), "- give its path as the argument", file=sys.stderr)
        sys.exit(2)
    sys.path += [str(file.parent), "."]
    spec = importlib.util.spec_from_file_location("subject_file", file)
    module = sys.modules["subject_file"] = importlib.util.module_from_spec(spec)
    start(SEED)
    spec.loader.exec_module(module)
    start(SEED)
    made = module.{factory}({keywords})
    return made[{index}] if isinstance(made, (tuple, list)) else made
'''

FROM_PICKLE = '''\
def load():
    import pickle  # the subject was stored with cloudpickle, which must be installed to read it

    sys.path += {paths}
    return pickle.loads((HERE / {pickle!r}).read_bytes())
'''

NOT_STORED = '''\
def load():
    print("the subject could not be stored:", {reason!r})
    print("return it from a factory and audit FILE.py:FACTORY; its reproductions load it from there")
    sys.exit(2)
'''

RERUN = '''\
import sys
from pathlib import Path

import numpy as np
from iresnet_verify.reproduction.rerun import rerun

HERE = Path(__file__).resolve().parent
{paths}
{inputs}  # what the check found; it searches again below

if __name__ == "__main__":
    sys.exit(rerun({subject}, places=sys.argv[1:], check={check!r}, mode={mode!r}, seed={seed!r}, budget={budget!r}, share={share!r}))
'''
