"""Random ROS messages of any type, and the same as plain values for other libraries."""

import random
import string

import numpy as np

from embodied.real_robot.messages.definition import NUMBERS
from embodied.real_robot.messages.values import Message, class_of

ASCII = string.ascii_letters + string.digits + " _/"
TEXT = ASCII + "äπ"


def random_message(struct, rng, *, longest=4, text=TEXT):
    """Every field anything its type can hold, with sequences of 0 .. longest elements."""
    if not struct.definition.fields:
        return class_of(struct)()  # the byte that stands for nothing stays 0
    return class_of(struct)(**{field.name: _field(field, rng, longest, text) for field in struct.fields})


def _field(field, rng, longest, text):
    definition = field.definition
    if definition.shape == "single":
        return _single(field, rng, longest, text)
    bound = definition.size if definition.shape == "array" else rng.randint(0, min(longest, definition.size or longest))
    values = [_single(field, rng, longest, text) for _ in range(bound)]
    if field.struct is not None or definition.kind == "string":
        return values
    return np.array(values, "?" if definition.kind == "bool" else NUMBERS[definition.kind])


def _single(field, rng, longest, text):
    if field.struct is not None:
        return random_message(field.struct, rng, longest=longest, text=text)
    kind = field.definition.kind
    if kind == "string":
        return "".join(rng.choices(text, k=rng.randint(0, field.definition.string_bound // 2 or 9)))
    if kind == "bool":
        return rng.random() < 0.5
    if kind in ("float32", "float64"):
        return float(np.dtype(NUMBERS[kind]).type(rng.choice([0.0, -1.5, rng.gauss(0, 1e3), 1e30, rng.random()])))
    limits = np.iinfo(NUMBERS[kind])
    return rng.choice([limits.min, limits.max, 0, rng.randint(limits.min, limits.max)])


def examples(struct, number, *, seed=0, text=TEXT):
    """Several random messages, the same each time."""
    rng = random.Random(f"{struct.name} {seed}")
    return [random_message(struct, rng, text=text) for _ in range(number)]


def plain(value):
    """As JSON has it."""
    if isinstance(value, Message):
        return {field.name: plain(getattr(value, field.name)) for field in value.struct.fields}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [plain(each) for each in value] if isinstance(value, list) else value


def from_plain(struct, values):
    """A message from what `plain` made."""
    made = {}
    for field in struct.fields:
        value, single = values[field.name], field.definition.shape == "single"
        if field.struct is not None:
            value = from_plain(field.struct, value) if single else [from_plain(field.struct, each) for each in value]
        elif not single and field.definition.kind != "string":
            value = np.array(value, "?" if field.definition.kind == "bool" else NUMBERS[field.definition.kind])
        made[field.name] = value
    return class_of(struct)(**made)
