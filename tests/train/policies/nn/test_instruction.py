"""Words get the same numbers in every process and language, and the order of words matters."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from vlapipe.train.policies.nn.instruction import InstructionEncoder, word_ids


def count(text: str) -> int:
    return len(word_ids(text, 2048, 24))


def test_numbers_are_the_same_for_ever() -> None:
    # A checkpoint's table is worthless if these change.
    assert word_ids("insert the needle", 2048, 24) == ((1735, 28), (245, 1565), (887, 1345))


def test_numbers_do_not_depend_on_the_process_hash_seed() -> None:
    code = "from vlapipe.train.policies.nn.instruction import word_ids; print(word_ids('red target', 2048, 24))"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert answers == {f"{word_ids('red target', 2048, 24)}\n"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("insert the needle", 3),
        ("  Insert,  the-needle! ", 3),
        ("", 0),
        ("?!", 0),
        ("führe die Nadel ein", 4),
        ("вставь иглу", 2),
        ("바늘을 넣으세요", 2),
        ("把针插入红色目标", 8),
        ("task_2 snake_case", 4),
        ("word " * 100, 24),
    ],
)
def test_words_of_any_language_are_counted(text: str, words: int) -> None:
    assert count(text) == words


def test_case_and_form_of_letters_do_not_matter() -> None:
    assert word_ids("ÉCRAN", 2048, 24) == word_ids("e\u0301cran", 2048, 24)


def test_different_words_are_not_confused() -> None:
    words = [f"word{i}" for i in range(2000)]
    assert len({word_ids(word, 2048, 24) for word in words}) > 1995


def test_order_of_words_changes_the_code() -> None:
    torch.manual_seed(0)
    encoder = InstructionEncoder(32)
    device = torch.device("cpu")
    codes = encoder(*encoder.ids(["red left of blue", "blue left of red", "red left of blue"], device))
    assert torch.equal(codes[0], codes[2])
    assert not torch.allclose(codes[0], codes[1], atol=1e-4)


def test_empty_instruction_has_a_finite_code() -> None:
    encoder = InstructionEncoder(32)
    codes = encoder(*encoder.ids(["", "go"], torch.device("cpu")))
    assert torch.isfinite(codes).all()


def test_code_of_an_instruction_does_not_depend_on_the_others_of_the_batch() -> None:
    torch.manual_seed(0)
    encoder, device = InstructionEncoder(32), torch.device("cpu")
    batch = ["push the puck", "open the door", "push the puck", "", "reach"]
    together = encoder(*encoder.ids(batch, device))
    for text, code in zip(batch, together, strict=True):
        assert torch.allclose(encoder(*encoder.ids([text], device))[0], code, atol=1e-6)


def test_the_block_works_once_on_each_different_instruction() -> None:
    rows, which = InstructionEncoder(32).ids(["go left", "go right", "go left", "stop"] * 8, torch.device("cpu"))
    assert (len(rows), which.tolist()[:4]) == (4, [0, 1, 0, 2])  # three, rounded up to a power of two
