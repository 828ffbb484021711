"""The benchmark of truth: architectures times initialisations, each trained; see ``benchmarks/trainability.py``."""
