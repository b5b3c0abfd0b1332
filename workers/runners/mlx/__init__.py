"""mlx-lm's models on Apple GPUs, and on processors: many sequences in one pass.

runner.py          the ModelRunner: life cycle, handles, status
loading.py         from a spec to a model that has computed once: model.py, weights.py, packed.py, rope.py, device.py
sizing.py          how much KV memory, and the memory that is there
session.py         a forward pass: runs.py checks and cuts the batch, groups.py says what is computed together
group_pass.py      one group's pass: what the model takes for its caches, over the arrays of many handles
sequence_kv.py, handles.py, exported.py    one handle's arrays, the table of handles, and a handle's KV as bytes
opened.py          what a loaded model says about itself
"""
