"""JPEG files of a source arrive in the store byte for byte, unless a frame is not exactly what its file holds."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embodied.core.reporting import SilentReporter
from embodied.datasets.files.encoded_images import decode_image, decode_picture
from embodied.datasets.formats import open_source
from embodied.datasets.importing import plan_import, run_import
from embodied.datasets.key_casting import ImageOptions
from embodied.datasets.key_mapping import KeyMapping
from embodied.datasets.key_proposal import propose
from embodied.datasets.store.chunk_codecs import encode_jpeg

FIXTURES = Path(__file__).parent / "fixtures"
LENGTH = 3


def scene(number, height=32, width=48):
    """A smooth picture with colours that change fast enough for chroma subsampling to show."""
    y, x = np.mgrid[:height, :width]
    red = 128 + 100 * np.sin(x / 3 + number)
    return np.stack([red, 5 * y + 9 * number, 255 - red], axis=-1).clip(0, 255).astype(np.uint8)


def file_of(array, *, mode=None, **options):
    handle = io.BytesIO()
    Image.fromarray(array).convert(mode).save(handle, "JPEG", **options)
    return handle.getvalue()


FILES = [file_of(scene(number), quality=70 + 10 * number, subsampling=number % 3) for number in range(LENGTH)]


def write_images(root, files):
    for number, data in enumerate(files):
        (root / "walk").mkdir(parents=True, exist_ok=True)
        (root / "walk" / f"{number}.jpg").write_bytes(data)
    return root, {}


def write_webdataset(root, files):
    writer = pytest.importorskip("webdataset").TarWriter(str(root.with_suffix(".tar")))
    for number, data in enumerate(files):
        writer.write({"__key__": f"walk/{number}", "jpg": data})
    writer.close()
    return root.with_suffix(".tar"), {"episodes": "key"}


def write_rlds(root, files):
    tfrecord = pytest.importorskip("tfrecord")
    kinds = "tensorflow_datasets.core.features."
    height, width = decode_image(files[0], where="first").shape[:2]
    picture = {"shape": {"dimensions": [str(height), str(width), "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"}
    features = {"image": {"pythonClassName": kinds + "image_feature.Image", "image": picture}}
    inner = {"pythonClassName": kinds + "features_dict.FeaturesDict", "featuresDict": {"features": features}}
    steps = {"pythonClassName": kinds + "dataset_feature.Dataset", "sequence": {"feature": inner, "length": "-1"}}
    outer = {"pythonClassName": kinds + "features_dict.FeaturesDict", "featuresDict": {"features": {"steps": steps}}}
    root.mkdir()
    (root / "features.json").write_text(json.dumps(outer))
    (root / "dataset_info.json").write_text(json.dumps({"name": "arm", "version": "1.0.0"}))
    writer = tfrecord.TFRecordWriter(str(root / "arm-train.tfrecord-00000-of-00001"))
    writer.write({"steps/image": (list(files), "byte")})
    writer.close()
    return root, {"fps": 10}


def write_rosbag(root, files):
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    from rosbags.typesys import Stores, get_typestore

    store, kind = get_typestore(Stores.ROS2_HUMBLE), "sensor_msgs/msg/CompressedImage"
    with rosbag2.Writer(root, version=8) as writer:
        topic = writer.add_connection("/camera", kind, typestore=store)
        for number, data in enumerate(files):
            at = 10**18 + number * 10**8
            stamp = store.types["builtin_interfaces/msg/Time"](sec=at // 10**9, nanosec=at % 10**9)
            header = store.types["std_msgs/msg/Header"](stamp=stamp, frame_id="")
            message = store.types[kind](header=header, format="jpeg", data=np.frombuffer(data, np.uint8))
            writer.write(topic, at, store.serialize_cdr(message, kind))
    return root, {"fps": 10}


def write_lerobot(root, files):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    shutil.copytree(FIXTURES / "lerobot_v3_image", root)
    for path in (root / "data").rglob("*.parquet"):
        columns = pq.read_table(path).to_pydict()
        for number, row in enumerate(columns["observation.images.front"]):
            row["bytes"] = files[number % len(files)]
        pq.write_table(pa.table(columns), path)
    return root, {"episodes": [0]}


WRITERS = [write_images, write_webdataset, write_rlds, write_rosbag, write_lerobot]


def imported(root, options, to, *, images=None):
    format, source = open_source(str(root), options=options)
    mapping = propose(source.keys)
    plan = plan_import(source, format=format, path=str(root), mapping=mapping, images=images)
    store = run_import(source, plan, to, reporter=SilentReporter()).store
    source.close()
    keys = [key for key in store.image_keys if store.keys[key].shape == (32, 48, 3)]
    return store, keys[0]


@pytest.mark.parametrize("write", WRITERS)
def test_the_store_has_the_files_of_the_source(tmp_path, write):
    root, options = write(tmp_path / "source", FILES)
    store, key = imported(root, options, tmp_path / "store")
    stored = store.read_encoded(key, 0, store.num_frames)
    assert stored == [FILES[number % LENGTH] for number in range(len(stored))] and len(stored) >= LENGTH
    frames = store.read(key, 0, LENGTH)
    for frame, data in zip(frames, FILES, strict=True):
        assert np.array_equal(frame, np.asarray(Image.open(io.BytesIO(data))))
    assert list(store.validate()) == []


def test_minari_files_arrive_too(tmp_path):
    h5py = pytest.importorskip("h5py")
    minari = pytest.importorskip("minari")
    space = pytest.importorskip("gymnasium").spaces
    from minari.data_collector import EpisodeBuffer

    frames = np.stack([scene(number) for number in range(5)])
    episode = EpisodeBuffer(
        id=0,
        observations={"camera": frames},
        actions=np.zeros((4, 1), np.float32),
        rewards=[0.0] * 4,
        terminations=[False] * 4,
        truncations=[False] * 3 + [True],
        infos={},
    )
    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning):  # about authors
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
        for kind in ("hdf5", "arrow"):
            minari.create_dataset_from_buffers(
                f"arm/{kind}-v0",
                [episode],
                observation_space=space.Dict({"camera": space.Box(0, 255, (32, 48, 3), np.uint8)}),
                action_space=space.Box(-1, 1, (1,)),
                data_format=kind,
                jpeg_encoding=True,
            )
    with h5py.File(tmp_path / "arm/hdf5-v0/data/main_data.hdf5") as file:
        written = [bytes(row) for row in file["episode_0/observations/camera"]]
    for kind in ("hdf5", "arrow"):
        store, key = imported(tmp_path / f"arm/{kind}-v0", {"fps": 10}, tmp_path / kind)
        assert store.read_encoded(key, 0, 4) == written[:4], kind


def exif(turn):
    data = Image.Exif()
    data[0x0112] = turn
    return data


TURNED = file_of(scene(1, 48, 32), quality=90, exif=exif(6))
WHOLE = file_of(scene(1), quality=90)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("progressive", file_of(scene(1), progressive=True)),
        ("gray", file_of(scene(1)[..., 0])),
        ("CMYK", file_of(scene(1), mode="CMYK")),
        ("turned", TURNED),
        ("with rubbish inside, which Pillow skips", WHOLE[:-2] + b"\x00" * 16 + WHOLE[-2:]),
        ("with a film behind it", WHOLE + b"\x00" * 200_000),
    ],
)
def test_other_files_are_decoded_and_compressed(tmp_path, name, data):
    files = [WHOLE, data, WHOLE]
    root, options = write_images(tmp_path / "source", files)
    store, key = imported(root, options, tmp_path / "store")
    stored, expected = store.read_encoded(key, 0, 3), decode_image(data, where=name, upright=True)
    expected = np.repeat(expected[..., None], 3, axis=2) if expected.ndim == 2 else expected
    assert (stored[0], stored[2]) == (WHOLE, WHOLE)
    assert stored[1] == encode_jpeg(expected) != data


def test_a_file_lies_right_as_metadata_says_or_is_not_kept(tmp_path):
    upright = file_of(scene(1), exif=exif(1))
    assert decode_picture(upright, where="", upright=True).file == upright
    assert decode_picture(upright, where="").file is None  # nobody looks into its metadata
    assert decode_picture(TURNED, where="", upright=True).pixels.shape == (32, 48, 3)
    assert decode_picture(TURNED, where="").pixels.shape == (48, 32, 3)


def test_settings_that_change_pixels_or_the_codec_are_followed(tmp_path):
    root, options = write_images(tmp_path / "source", FILES)
    store, key = imported(root, options, tmp_path / "lossless", images=ImageOptions(codec="zstd"))
    assert store.keys[key].codec == "zstd"
    assert np.array_equal(store.read(key, 1, 2)[0], decode_image(FILES[1], where=""))
    _, source = open_source(str(root), options={"size": 16})
    plan = plan_import(source, format="images", path=str(root), mapping=propose(source.keys))
    small = run_import(source, plan, tmp_path / "small", reporter=SilentReporter()).store
    frame = next(next(source.episodes()).blocks())["observation.images.camera"][0]
    assert small.read_encoded("observation.images.camera", 0, 1) == [encode_jpeg(frame)]


def test_a_picture_under_another_name_keeps_its_file(tmp_path):
    root, options = write_images(tmp_path / "source", FILES)
    _, source = open_source(str(root), options=options)
    mapping = KeyMapping({"observation.images.head": ("observation.images.camera",)})
    plan = plan_import(source, format="images", path=str(root), mapping=mapping)
    store = run_import(source, plan, tmp_path / "store", reporter=SilentReporter()).store
    assert store.read_encoded("observation.images.head", 0, LENGTH) == FILES
