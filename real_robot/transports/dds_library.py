"""Cyclone DDS' C library, as the Python package `cyclonedds` brings it along, called through ctypes.

The package's own classes are not used: they take sixty times as long for an image, and cannot leave type information
out (see `dds_types`).
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int32, c_int64, c_size_t, c_ssize_t, c_uint32, c_uint64, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embodied.core.errors import MissingExtraError, UserError
from embodied.real_robot.messages.structs import Struct
from embodied.real_robot.transports.dds_types import program
from embodied.real_robot.transports.transport import TransportError

ANY_STATE = 127  # of samples, views and instances
DATA = 2  # a serdata's kind: a whole message
RESTRICTED = 1 << 7  # a descriptor's flag: the data representation below holds
XCDR1 = 0
_ERRORS = 3  # fatal ones and others; a warning for each packet that is no message would let any peer fill a log
_VERSIONS = ("11.",)  # whose structs are declared here


class Buffer(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", c_void_p), ("length", c_size_t))


class SampleInfo(ctypes.Structure):
    """dds_sample_info_t."""

    _fields_ = (
        ("sample_state", c_uint32), ("view_state", c_uint32), ("instance_state", c_uint32), ("valid", c_bool),
        ("source_timestamp", c_int64), ("instance", c_uint64), ("publication", c_uint64), ("counts", c_uint32 * 5),
    )  # fmt: skip


class MatchedStatus(ctypes.Structure):
    """dds_publication_matched_status_t, and the same for subscriptions."""

    _fields_ = (
        ("total", c_uint32), ("total_change", c_int32), ("current", c_uint32), ("current_change", c_int32),
        ("last", c_uint64),
    )  # fmt: skip


class _TypeData(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("size", c_uint32))


class Descriptor(ctypes.Structure):
    """dds_topic_descriptor_t; keep it for as long as a topic of it is used."""

    _fields_ = (
        ("size", c_uint32), ("align", c_uint32), ("flags", c_uint32), ("key_count", c_uint32), ("type_name", c_char_p),
        ("keys", c_void_p), ("word_count", c_uint32), ("words", POINTER(c_uint32)), ("meta", c_char_p),
        ("type_information", _TypeData), ("type_mapping", _TypeData), ("representations", c_uint32),
    )  # fmt: skip


def descriptor(struct: Struct, type_name: str) -> Descriptor:
    """What Cyclone needs to know of a type: its name on the wire, its program, and XCDR version 1 only."""
    made = program(struct)
    words = (c_uint32 * len(made.words))(*made.words)
    empty = _TypeData(None, 0)
    return Descriptor(
        made.size, made.alignment, RESTRICTED, 0, type_name.encode(), None, len(words), words, b"", empty, empty,
        1 << XCDR1,
    )  # fmt: skip


_ENTITY, _RESULT = c_int32, c_int32
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "dds_set_log_mask": (None, (c_uint32,)),
    "dds_create_domain": (_ENTITY, (c_uint32, c_char_p)),
    "dds_create_participant": (_ENTITY, (c_uint32, c_void_p, c_void_p)),
    "dds_create_topic": (_ENTITY, (_ENTITY, POINTER(Descriptor), c_char_p, c_void_p, c_void_p)),
    "dds_create_writer": (_ENTITY, (_ENTITY, _ENTITY, c_void_p, c_void_p)),
    "dds_create_reader": (_ENTITY, (_ENTITY, _ENTITY, c_void_p, c_void_p)),
    "dds_create_readcondition": (_ENTITY, (_ENTITY, c_uint32)),
    "dds_create_guardcondition": (_ENTITY, (_ENTITY,)),
    "dds_set_guardcondition": (_RESULT, (_ENTITY, c_bool)),
    "dds_create_waitset": (_ENTITY, (_ENTITY,)),
    "dds_waitset_attach": (_RESULT, (_ENTITY, _ENTITY, c_ssize_t)),
    "dds_waitset_wait": (_RESULT, (_ENTITY, POINTER(c_ssize_t), c_size_t, c_int64)),
    "dds_delete": (_RESULT, (_ENTITY,)),
    "dds_get_publication_matched_status": (_RESULT, (_ENTITY, POINTER(MatchedStatus))),
    "dds_get_subscription_matched_status": (_RESULT, (_ENTITY, POINTER(MatchedStatus))),
    "dds_get_entity_sertype": (_RESULT, (_ENTITY, POINTER(c_void_p))),
    "dds_writecdr": (_RESULT, (_ENTITY, c_void_p)),
    "dds_takecdr": (_RESULT, (_ENTITY, POINTER(c_void_p), c_uint32, POINTER(SampleInfo), c_uint32)),
    "dds_strretcode": (c_char_p, (_RESULT,)),
    "dds_create_qos": (c_void_p, ()),
    "dds_delete_qos": (None, (c_void_p,)),
    "dds_qset_reliability": (None, (c_void_p, c_int, c_int64)),
    "dds_qset_history": (None, (c_void_p, c_int, c_int32)),
    "dds_qset_durability": (None, (c_void_p, c_int)),
    "dds_qset_durability_service": (None, (c_void_p, c_int64, c_int, c_int32, c_int32, c_int32, c_int32)),
    "dds_qset_writer_data_lifecycle": (None, (c_void_p, c_bool)),
    "dds_qset_data_representation": (None, (c_void_p, c_uint32, POINTER(ctypes.c_int16))),
    "dds_qset_userdata": (None, (c_void_p, c_char_p, c_size_t)),
    "ddsi_serdata_from_ser_iov": (c_void_p, (c_void_p, c_int, c_size_t, POINTER(Buffer), c_size_t)),
    "ddsi_serdata_size": (c_uint32, (c_void_p,)),
    "ddsi_serdata_to_ser": (None, (c_void_p, c_size_t, c_size_t, c_void_p)),
    "ddsi_serdata_unref": (None, (c_void_p,)),
}


@cache
def library() -> ctypes.CDLL:
    """The library with its functions' signatures.

    Raises:
        MissingExtraError: cyclonedds is not installed.
        UserError: it is of a version whose structs may differ, or brings no library.
    """
    from importlib import metadata

    found = find_spec("cyclonedds")
    if found is None or found.origin is None:
        raise MissingExtraError("cyclonedds", "dds")
    version = metadata.version("cyclonedds")
    if not version.startswith(_VERSIONS):
        raise UserError(f"cyclonedds {version} is installed, but the dds transport is made for version 11")
    folder = Path(found.origin).parent
    files = [*folder.parent.glob("cyclonedds.libs/libddsc*"), *folder.glob(".dylibs/libddsc*")]
    if len(files) != 1:
        raise UserError(f"cyclonedds in {folder} does not bring its C library along: install it from a wheel")
    loaded = ctypes.CDLL(str(files[0]))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    loaded.dds_set_log_mask(_ERRORS)
    return loaded


def checked(result: int, doing: str) -> int:
    """`result`, if it is no error; raises TransportError with Cyclone's own words."""
    if result < 0:
        raise TransportError(f"{doing}: {library().dds_strretcode(-result).decode(errors='replace')}")
    return result
