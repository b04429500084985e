"""Rules: what a field may hold, as a test and in words, for `InvalidValue` to name when it does not hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dqar.errors import invalid_value

QUANTIZATION_MODES = ("per_tensor", "per_channel", "per_head")
QUANTIZATION_BITS = (4, 8, 16)
SCHEDULE_TYPES = ("linear", "linear_reverse", "exponential", "step", "custom", "adaptive")
REUSE_MODES = ("output", "kv")
TARGETS = ("attention", "mlp", "both")
FORECAST_COORDINATES = ("log_snr", "step")
MAX_COUNT = 1_000_000  # of layers, steps, tokens: far beyond any, and safe in every computation


class Rule(NamedTuple):
    """What a field may hold."""

    allows: Callable[[Any], bool]
    allowed: str  # the same in words

    def check(self, name: str, value: Any) -> None:
        """Refuse a value that the rule does not allow.

        Args:
            name: Name of the field or argument, for the error.
            value: Anything.

        Raises:
            InvalidValue: With the field's name, the value and what is allowed.
        """
        try:
            holds = bool(self.allows(value))
        except (TypeError, ValueError, OverflowError):  # values that compare with nothing, arrays
            holds = False
        if not holds:
            raise invalid_value(name, value, self.allowed)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number.

    Args:
        value: Anything.

    Returns:
        True for an int that is no boolean.
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold.

    Args:
        value: Anything.

    Returns:
        True for an int or a float, infinite ones included; false for NaN and booleans.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return not math.isnan(float(value))
    except OverflowError:  # an integer of more than 308 digits
        return False


def flag() -> Rule:
    """The rule of a switch.

    Returns:
        It allows True and False, no other numbers.
    """
    return Rule(lambda v: isinstance(v, bool), "true or false")


def count(low: int) -> Rule:
    """The rule of a number of things.

    Args:
        low: The smallest that is allowed.

    Returns:
        It allows whole numbers from `low` to MAX_COUNT.
    """
    return Rule(lambda v: is_whole(v) and low <= v <= MAX_COUNT, f"a whole number from {low} to {MAX_COUNT}")


def threshold() -> Rule:
    """The rule of a bound that infinity switches off.

    Returns:
        It allows numbers from 0 to infinity.
    """
    return Rule(lambda v: is_number(v) and v >= 0, "a number, 0 to infinity")


def finite() -> Rule:
    """The rule of a quantity.

    Returns:
        It allows finite numbers from 0 up.
    """
    return Rule(lambda v: is_number(v) and 0 <= v < math.inf, "a number from 0 up")


def share(below_one: bool = False) -> Rule:
    """The rule of a part of a whole.

    Args:
        below_one: Whether 1 itself is refused.

    Returns:
        It allows numbers from 0 to 1.
    """
    if below_one:
        return Rule(lambda v: is_number(v) and 0 <= v < 1, "a number from 0 to below 1")
    return Rule(lambda v: is_number(v) and 0 <= v <= 1, "a number from 0 to 1")


def count_or_share(low: int) -> Rule:
    """The rule of a number of things that may be given as their share.

    Args:
        low: The smallest number that is allowed.

    Returns:
        It allows whole numbers from `low` to MAX_COUNT, and floats between 0 and 1, both excluded.
    """
    whole = count(low)
    return Rule(
        lambda v: whole.allows(v) or (isinstance(v, float) and 0 < v < 1),
        f"{whole.allowed}, or a share between 0 and 1",
    )


def choice_or_share(values: Sequence[Any]) -> Rule:
    """The rule of a mixture of two things, the pure ones by name.

    Args:
        values: The names.

    Returns:
        It allows what `choice(values)` does, and floats between 0 and 1, both excluded.
    """
    named = choice(values)
    return Rule(
        lambda v: named.allows(v) or (isinstance(v, float) and 0 < v < 1),
        f"{named.allowed}, or a share between 0 and 1",
    )


def choice(values: Sequence[Any]) -> Rule:
    """The rule of a field with few possible values.

    Args:
        values: The possible values.

    Returns:
        It allows what equals one of `values` and is of the same type.
    """
    return Rule(
        lambda v: any(type(v) is type(value) and v == value for value in values), ", ".join(map(str, values))
    )


def text(meaning: str) -> Rule:
    """The rule of text.

    Args:
        meaning: What the text is, in the words of the error.

    Returns:
        It allows any text that is not empty.
    """
    return Rule(lambda v: isinstance(v, str) and v != "", meaning)


def optional(rule: Rule) -> Rule:
    """The rule of a field that may be None.

    Args:
        rule: What it allows otherwise.

    Returns:
        It allows None, and what `rule` allows.
    """
    return Rule(lambda v: v is None or rule.allows(v), f"None, or {rule.allowed}")


def each_layer(rule: Rule) -> Rule:
    """The rule of a field with a value for each layer.

    Args:
        rule: What each value may be.

    Returns:
        It allows tuples of at least one value; their length is not checked, for the model is not known yet.
    """
    return Rule(
        lambda v: isinstance(v, tuple) and len(v) > 0 and all(rule.allows(x) for x in v),
        f"a tuple with one entry per layer: {rule.allowed}",
    )


def one_or_each_layer(rule: Rule) -> Rule:
    """The rule of a field with one value for all layers, or one for each.

    Args:
        rule: What each value may be.

    Returns:
        It allows what `rule` does, and what `each_layer(rule)` does.
    """
    each = each_layer(rule)
    return Rule(
        lambda v: each.allows(v) if isinstance(v, tuple) else rule.allows(v),
        f"{rule.allowed}, or a tuple of these with one entry per layer",
    )
