"""The quality gate: how far what an arm computes is from the same weights in FP32.

passages.txt, windows.py       the fixed text, in windows of tokens
forcing.py                     a runner is told every token and says what it expects next, at some number of rows a step
divergence.py                  KL, agreement: two sets of expectations, one figure of each kind
request.py, child.py           a process for each backend, which opens the model as a worker does
peers.py                       other servers, asked over HTTP for the tokens they find most likely
results.py, gate.py, tables.py what came out, the order of things, the table
"""
