"""Rules of this house; every module of the package may hold some."""
