"""Folders as TensorFlow Datasets writes them, with the features of real Open-X data."""

import io
import json

import numpy as np
from PIL import Image
from tfrecord import TFRecordWriter

PREFIX = "tensorflow_datasets.core.features."


def tensor(dtype, *shape, encoding="none"):
    sizes = {"dimensions": [str(size) for size in shape]} if shape else {}
    content = {"shape": sizes, "dtype": dtype, "encoding": encoding}
    return {"pythonClassName": PREFIX + "tensor_feature.Tensor", "tensor": content}


def image(*shape, dtype="uint8", encoding="jpeg"):
    content = {"shape": {"dimensions": [str(size) for size in shape]}, "dtype": dtype, "encodingFormat": encoding}
    return {"pythonClassName": PREFIX + "image_feature.Image", "image": content}


def text():
    return {"pythonClassName": PREFIX + "text_feature.Text", "text": {}}


def features_dict(**features):
    return {"pythonClassName": PREFIX + "features_dict.FeaturesDict", "featuresDict": {"features": features}}


def sequence(feature, name="sequence_feature.Sequence"):
    return {"pythonClassName": PREFIX + name, "sequence": {"feature": feature, "length": "-1"}}


def steps(**features):
    return sequence(features_dict(**features), "dataset_feature.Dataset")


BRIDGE = features_dict(
    steps=steps(
        observation=features_dict(image_0=image(16, 24, 3), image_1=image(16, 24, 3), state=tensor("float32", 7)),
        action=tensor("float32", 7),
        language_instruction=text(),
        language_embedding=tensor("float32", 512),
        is_first=tensor("bool"),
        is_last=tensor("bool"),
        is_terminal=tensor("bool"),
        discount=tensor("float32"),
        reward=tensor("float32"),
    ),
    episode_metadata=features_dict(file_path=text(), has_image_0=tensor("bool"), episode_id=tensor("int32")),
)


def encode(array, format="JPEG", **options):
    handle = io.BytesIO()
    Image.fromarray(array).save(handle, format, **options)
    return handle.getvalue()


def decode(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def bridge_episode(length, seed):
    generator = np.random.default_rng(seed)
    pictures = generator.integers(0, 256, (2, length, 2, 3, 3), dtype=np.uint8).repeat(8, axis=2).repeat(8, axis=3)
    last = np.arange(length) == length - 1
    return {
        "steps/observation/image_0": ([encode(picture) for picture in pictures[0]], "byte"),
        "steps/observation/image_1": ([encode(picture) for picture in pictures[1]], "byte"),
        "steps/observation/state": (generator.normal(size=length * 7), "float"),
        "steps/action": (generator.normal(size=length * 7), "float"),
        "steps/language_instruction": ([b"put the carrot on the plate"] * (length - 1) + [b""], "byte"),
        "steps/language_embedding": (np.zeros(length * 512), "float"),
        "steps/is_first": (np.eye(1, length, dtype=int)[0], "int"),
        "steps/is_last": (last.astype(int), "int"),
        "steps/is_terminal": (last.astype(int), "int"),
        "steps/discount": (np.ones(length), "float"),
        "steps/reward": (last.astype(float), "float"),
        "episode_metadata/file_path": ([f"/data/{seed}.npy".encode()], "byte"),
        "episode_metadata/has_image_0": ([1], "int"),
        "episode_metadata/episode_id": ([seed], "int"),
    }


def write(folder, features, *shards, name="bridge", split="train", info=None):
    """A TFDS folder with these episodes per shard."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.json").write_text(json.dumps(features))
    (folder / "dataset_info.json").write_text(json.dumps(info or {"name": name, "version": "1.0.0"}))
    for index, episodes in enumerate(shards):
        writer = TFRecordWriter(str(folder / f"{name}-{split}.tfrecord-{index:05d}-of-{len(shards):05d}"))
        for episode in episodes:
            writer.write(episode)
        writer.close()
    return folder


def write_one(folder, values, **features):
    """A folder with one episode of two steps; `values` lack the prefix `steps/`."""
    flags = {"steps/is_first": ([1, 0], "int")}
    episode = flags | {f"steps/{name}": value for name, value in values.items()}
    return write(folder / "1.0.0", features_dict(steps=steps(is_first=tensor("bool"), **features)), [episode])


def read(episode):
    blocks = list(episode.blocks())
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}


def write_bridge(tmp_path):
    """The folder and its three episodes, in two shards."""
    episodes = [bridge_episode(length, seed) for seed, length in enumerate((4, 3, 5))]
    return write(tmp_path / "bridge" / "1.0.0", BRIDGE, episodes[:2], episodes[2:]), episodes
