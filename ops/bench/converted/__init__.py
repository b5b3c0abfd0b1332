"""The model in the formats that peers want, made of the one GGUF file and kept.

kept.py            where, and that a half-written one is never taken for a whole one
q8_0.py            a GGUF file in Q8_0
folder.py          a folder with safetensors in BF16
"""
