"""Other wordings of the demo's instruction. No recorded demo has any of them."""

from __future__ import annotations

__all__ = ["PARAPHRASES"]

PARAPHRASES = (
    "put the needle into the {colour} pad",
    "stick the needle in the {colour} target",
    "push the needle into the {colour} disc",
    "the needle should go into the {colour} target",
    "pierce the {colour} pad with the needle",
    "please insert the needle in the {colour} one",
    "go to the {colour} target and insert the needle",
    "needle into {colour}",
    "puncture the {colour} target",
    "move over the {colour} pad and push the needle in",
    "aim at the {colour} target and insert",
    "lower the needle into the {colour} pad",
    "choose the {colour} target for the needle",
    "insert the tip of the needle into the {colour} cylinder",
    "place the needle inside the {colour} pad",
    "take the needle to the {colour} pad and enter it",
    "the {colour} target is the one to pierce",
    "drive the needle into the {colour} target",
    "find the {colour} pad and prick it",
    "with the needle, enter the {colour} target",
)
