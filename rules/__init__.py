"""The rules that ship with initlint: one file each, found by the catalog through the entry point `core`."""
