"""Experiments on the built-in corpora: what pre-training is worth, measured the same way for every method.

`films` draws a corpus into memory, `methods` says what is trained, `study` trains it piece by piece and measures on
the way, `probes` and `scores` say how good features are, `results` keeps every number in a file, `curves` draws them.
"""
