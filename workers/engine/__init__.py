"""The engine: one step thread per model, between the worker's asyncio side and a runner."""
