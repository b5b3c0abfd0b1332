"""What the stack itself costs, beside a model that costs nothing: the echo runner.

overhead.py       open loop at a few rates: latency added to the first token; litellm_proxy.py is the peer
throughput.py     many streams at full rate: tokens for a second of the edge's processor
idle_streams.py   memory of an open stream that waits
backlog.py        a long queue: publishing, draining, and somebody in a hurry meanwhile
results.py        what came of them; tables.py shows it
"""
