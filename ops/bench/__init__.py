"""The benchmark: our stack and its peers on the same machine, in turn, under the same closed loop.

command.py                      options, order of things, where results go
arms.py                         what can be measured: our_stack.py, llama_server.py, each started by server_process.py
turns.py                        A B A B: start, warm up, measure each concurrency, stop
closed_loop.py                  the load: connection.py (HTTP), answer.py and events.py (the stream), prompts.py
summary.py                      figures of one run, medians of several
host.py, weights.py, peers.py   what the figures were taken on
document.py, markdown.py        JSON and tables
long_prompt.py                  a bench of its own: what a long prompt does to running chats
"""
