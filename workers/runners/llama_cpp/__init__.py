"""GGUF models on llama.cpp, through the low-level batch functions of llama-cpp-python: many sequences in one decode.

runner.py          the ModelRunner: checks, status codes, life cycle
handles.py         handles, and the llama.cpp sequence behind each
split_kv.py        one KV buffer per sequence (fast, committed at once)     } one of the two,
unified_kv.py      one KV buffer for all (small, shares prefixes for nothing) } chosen by sizing.py
context.py, model.py, batch_buffers.py, tokenizer.py      the library's objects, typed
library.py, log.py                                        the library itself, once per process
trial.py, trial_child.py, fingerprint.py                  what is tried or hashed once and then remembered
tuned.py           threads and micro-batch: remembered, or measured with those below
tuning.py, comparison.py, tuner.py, timed_steps.py        the choices, the rules, the order, the clock
"""
