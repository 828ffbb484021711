"""Identities of findings that outlive a run, and the paths they are made of."""

from __future__ import annotations

import os

import pytest

from initlint.fingerprints import fingerprint, relative


def test_a_fingerprint_never_changes() -> None:
    assert fingerprint("models/net.onnx", "zero-weights", "fc1.weight") == "8ea17889c47b03949c1db4cd7ebd08a5"


def test_every_part_counts_and_where_it_ends() -> None:
    parts = [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("a", "b", "C"), ('a","b', "", "c"), ("", "", "")]
    assert len({fingerprint(*each) for each in parts}) == len(parts)


def test_what_agrees_in_all_is_numbered() -> None:
    assert len({fingerprint("a", "b", "c", number) for number in range(3)}) == 3
    assert fingerprint("a", "b", "c", 0) == fingerprint("a", "b", "c")


def test_names_that_no_encoding_carries_have_one_too() -> None:
    assert fingerprint("\ud800", "a", "\udc80") != fingerprint("\udc80", "a", "\ud800")


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("net.onnx", "net.onnx"),
        ("./models//net.onnx", "models/net.onnx"),
        ("/checkout/models/net.onnx", "models/net.onnx"),
        ("../other/net.onnx", "../other/net.onnx"),
        ("/elsewhere/net.onnx", "../elsewhere/net.onnx"),
        ("pkg.mod:attr", "pkg.mod:attr"),
        ("./net.py:build", "net.py:build"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="paths of other systems")
def test_a_target_is_named_as_seen_from_the_folder(target: str, seen: str) -> None:
    assert relative(target, "/checkout") == seen
