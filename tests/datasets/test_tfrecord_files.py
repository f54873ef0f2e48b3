"""TFRecord files and tf.train.Examples are read as the tfrecord package writes them; damage is named."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from tfrecord import TFRecordWriter

from embodied.core.errors import UserError
from embodied.datasets.files.tf_example import FeatureList, parse_example
from embodied.datasets.files.tfrecord_files import RecordSpan, masked_crc, read_record, record_spans


def write(path, *examples):
    writer = TFRecordWriter(str(path))
    for example in examples:
        writer.write(example)
    writer.close()
    return path


def parse(data, **options):
    return parse_example(io.BytesIO(data), RecordSpan(Path("f.tfrecord"), 0, 0, len(data)), start=0, **options)


def field(number, payload):
    """A protobuf field of bytes shorter than 128."""
    return bytes([number << 3 | 2, len(payload)]) + payload


def feature(kind, body):
    """An Example with one feature `x`, whose list of `kind` (1 bytes, 2 float, 3 int64) has this body."""
    return field(1, field(1, field(1, b"x") + field(2, field(kind, body))))


@pytest.fixture
def file(tmp_path):
    return write(
        tmp_path / "a.tfrecord",
        {"name": ([b"one", b""], "byte"), "x": ([0.5, -2.0], "float"), "n": ([3], "int")},
        {"n": (list(range(300)), "int")},
    )


def test_records_come_in_order_with_the_values_that_were_written(file):
    first, second = [parse(read_record(span)) for span in record_spans(file)]
    assert first["name"].items == [b"one", b""]
    assert first["x"].numbers("float32").tolist() == [0.5, -2.0]
    assert first["n"].numbers("uint8").tolist() == [3]
    assert second.keys() == {"n"} and len(second["n"]) == 300
    assert second["n"].numbers("int64").tolist() == list(range(300))


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "uint8", "bool"])
def test_every_integer_survives(tmp_path, dtype):
    info = np.iinfo("int64" if dtype in ("bool", "uint64") else dtype)
    values = [0, 1] if dtype == "bool" else [0, 1, 127, 128, info.max, info.min, info.max - 1]
    (span,) = record_spans(write(tmp_path / "a.tfrecord", {"n": (values, "int")}))
    found = parse(read_record(span))["n"].numbers(dtype)
    assert found.dtype == dtype
    expected = np.array(values, np.int64).view(np.uint64) if dtype == "uint64" else np.array(values, dtype)
    assert np.array_equal(found, expected)


def test_long_lists_of_integers_are_decoded_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("embodied.datasets.files.tf_example._SEGMENT", 7)
    values = np.random.default_rng(0).integers(-(2**62), 2**62, 200) >> np.arange(200) % 60
    (span,) = record_spans(write(tmp_path / "a.tfrecord", {"n": (values, "int")}))
    assert np.array_equal(parse(read_record(span))["n"].numbers("int64"), values)


def test_a_number_that_does_not_fit_is_no_silent_wrap(tmp_path):
    (span,) = record_spans(write(tmp_path / "a.tfrecord", {"n": ([1, 300], "int"), "x": ([1.5], "float")}))
    example = parse(read_record(span))
    with pytest.raises(ValueError, match="300 does not fit uint8"):
        example["n"].numbers("uint8")
    with pytest.raises(ValueError, match="expected int64, got float"):
        example["x"].numbers("int64")


def test_only_the_wanted_values_are_read_from_a_file(file):
    first, _ = record_spans(file)
    with file.open("rb") as handle:
        example = parse_example(handle, first, start=first.start, only={"n", "absent"})
    assert example.keys() == {"n"} and example["n"].numbers("int64").tolist() == [3]


def test_unpacked_numbers_and_unknown_fields_are_valid_protobuf():
    floats = struct.pack("<Bf", 1 << 3 | 5, 0.25) + struct.pack("<Bf", 1 << 3 | 5, -1.0)
    assert parse(feature(2, floats))["x"].numbers("float32").tolist() == [0.25, -1.0]
    integers = b"\x08\x05" + b"\x08\xac\x02"
    assert parse(feature(3, integers))["x"].numbers("int64").tolist() == [5, 300]
    strange = field(9, b"??") + b"\x80\x01\x07" + b"\x21" + b"8 bytes!" + b"\x2d" + b"4 by"
    assert parse(strange + feature(3, field(1, b"\x07")))["x"].numbers("int64").tolist() == [7]


def test_of_several_lists_under_one_name_the_last_kind_counts():
    both = field(1, field(1, b"x") + field(2, field(3, field(1, b"\x07")) + field(1, field(1, b"text"))))
    assert parse(field(1, both))["x"] == FeatureList("bytes", [b"text"])


def test_a_flipped_bit_in_the_bytes_names_the_record(file):
    _, second = record_spans(file)
    data = bytearray(file.read_bytes())
    data[second.start + 40] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=rf"record 1 of .*a\.tfrecord \(at byte {second.start}\).*checksum"):
        read_record(list(record_spans(file))[1])


@pytest.mark.parametrize("length", [2**63, 2**31, 1000])
def test_a_length_beyond_the_file_is_refused(tmp_path, length):
    path = tmp_path / "a.tfrecord"
    header = struct.pack("<Q", length)
    path.write_bytes(header + struct.pack("<I", masked_crc(header)) + b"short")
    with pytest.raises(UserError, match=f"record 0 .*claims {length} bytes, and the file has 1 left"):
        list(record_spans(path))


def test_a_file_that_is_cut_anywhere_is_found(file):
    data = file.read_bytes()
    second = list(record_spans(file))[1].start - 12
    for size in range(1, len(data)):
        file.write_bytes(data[:size])
        if size == second:  # between two records nothing is missing that the file could tell of
            assert len(list(record_spans(file))) == 1
        else:
            with pytest.raises(UserError, match="is damaged"):
                list(record_spans(file))


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "a.tfrecord").touch()
    assert list(record_spans(tmp_path / "a.tfrecord")) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x0a\xff\xff\xff\xff\x0f", "claims 4294967295 bytes of the 0"),
        (b"\x0a" + b"\xff" * 11, "more than 64 bits"),
        (b"\x0b\x0c", "wire type 3"),
        (feature(2, field(1, b"123")), "cut off"),
        (feature(3, field(1, b"\x80")), "cut off"),
        (feature(3, b"\x0d1234"), "int64 has a value of wire type 5"),
        (b"\x0a", "ends beyond"),
    ],
)
def test_bytes_that_are_no_example_are_refused(body, message):
    with pytest.raises(UserError, match=message):
        parse(body)


def test_noise_gives_an_error_or_values_but_nothing_else(file):
    generator = np.random.default_rng(0)
    (first, _) = record_spans(file)
    whole = read_record(first)
    outcomes = {"parsed": 0, "refused": 0}
    for attempt in range(600):
        data = bytearray(whole[: generator.integers(1, len(whole) + 1)] if attempt % 4 == 0 else whole)
        for position in generator.integers(0, len(data), generator.integers(1, 4)):
            data[position] = generator.integers(256)
        try:
            example = parse(bytes(data))
        except UserError:
            outcomes["refused"] += 1
            continue
        outcomes["parsed"] += 1
        for values in example.values():
            assert len(values) <= len(data)
    assert min(outcomes.values()) > 20
