"""The table of weights, the lexicon, and the choices of a guess."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest

from vlapipe.pipeline.infer.choices import Choices, Option, Question
from vlapipe.pipeline.infer.evidence import Evidence, log_odds, said, weights
from vlapipe.pipeline.infer.lexicon import lexicon, use_lexicon, words_in
from vlapipe.schemas.errors import UsageError

INFER = Path(__file__).parents[3] / "pipeline" / "infer"


def features_in_code() -> set[str]:
    """Features that some detector returns: the first argument, a literal, of each call of ``Evidence``.

    ``named_`` with a key stands for the keys of the lexicon's roles.
    """
    found = set()
    for path in INFER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Evidence":
                assert node.args, f"{path.name}:{node.lineno}: the feature is the first argument"
                names = [each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)]
                assert names, f"{path.name}:{node.lineno}: the feature is not a literal"
                found |= {name for name in names if isinstance(name, str)}
    return found - {"named_"} | {f"named_{key}" for key in lexicon().table("roles")}


def test_each_feature_has_a_weight_and_each_weight_a_detector() -> None:
    weighed = {feature for table in weights().values() for feature in table} - {"prior"}
    assert features_in_code() == weighed


def test_weights_are_finite_and_bounded() -> None:
    assert all(math.isfinite(weight) and abs(weight) <= 40 for table in weights().values() for weight in table.values())


def test_evidence_adds_up_and_only_what_speaks_for_a_role_is_said() -> None:
    for_it, against, unknown = (
        Evidence("rows_kept", 0.5, "half"),
        Evidence("no_errors", 0.0, "none"),
        Evidence("x", 1, "x"),
    )
    assert log_odds("reading", [for_it, against, unknown]) == weights()["reading"]["rows_kept"] / 2
    assert said("reading", [against, unknown, for_it, for_it]) == ("half",)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("actualTCPPose_x1", ("actual", "tcp", "pose", "x", "1")),
        ("header.stamp.nsecs", ("header", "stamp", "nsecs")),
        ("Gelenk 3 (Grad)", ("gelenk", "3", "grad")),
        ("", ()),
    ],
)
def test_a_name_is_cut_into_words(name: str, words: tuple[str, ...]) -> None:
    assert words_in(name) == words


def test_own_words_are_added_and_forgotten_afterwards(tmp_path: Path) -> None:
    table, key = next((t, k) for t, keys in lexicon_tables().items() for k, v in keys.items() if isinstance(v, list))
    own = tmp_path / "own.toml"
    own.write_text(f'[{table}]\n{key} = ["quux angle"]\n')
    with use_lexicon(own):
        assert lexicon().likeness("quuxAngle", table, key) == 1
        assert lexicon().likeness("left_quux_angle", table, key) == 0.8
        assert lexicon().likeness("quux_angle_left", table, key) == 0.5
        assert set(lexicon().phrases(table, key)) > {"quux angle"}
    assert lexicon().likeness("quuxAngle", table, key) == 0


def lexicon_tables() -> dict[str, dict[str, object]]:
    import tomllib

    return tomllib.loads((INFER / "lexicon.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "says"),
    [("[nonsense]\nx = []\n", "nonsense: no table"), ("no toml", "own.toml"), (None, "No such file")],
)
def test_a_lexicon_that_is_none_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    own = tmp_path / "own.toml"
    if text is not None:
        own.write_text(text)
    with pytest.raises(UsageError, match=says), use_lexicon(own):
        pass


def test_the_likeliest_is_taken_unless_a_run_takes_another() -> None:
    options = [Option(value=v, score=s, says=v, line=v) for v, s in (("b", 1.0), ("a", 3.0), ("c", -1.0))]
    first = Choices()
    assert first.pick("x", options).value == "a"
    assert [first.made[0].lost_by(i) for i in range(3)] == [0, 2, 4]
    assert Choices({"x": 2}).pick("x", options).value == "c"
    assert Choices({"x": 9}).pick("x", options[:1]).value == "b"


def test_a_question_is_one_line() -> None:
    question = Question("robot: clock", "'t'", 'column = "t"', "'ms'", 'column = "ms"')
    assert str(question) == "robot: clock: 't' (column = \"t\"), or 'ms' (column = \"ms\")?"
