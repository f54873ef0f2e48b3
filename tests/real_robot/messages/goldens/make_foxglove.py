"""Makes foxglove.json: random messages of every type as @foxglove/rosmsg2-serialization writes them.

npm install @foxglove/rosmsg2-serialization @foxglove/rosmsg
PYTHONPATH=tests/shared python tests/real_robot/messages/goldens/make_foxglove.py FOLDER_OF_NODE_MODULES
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from ros_examples import ASCII, examples, plain

from embodied.real_robot.messages.structs import standard_definitions

HERE = Path(__file__).parent


def for_javascript(value, big):
    if isinstance(value, dict):
        return {name: for_javascript(each, big and name == "data") for name, each in value.items()}
    if isinstance(value, list):
        return [for_javascript(each, big) for each in value]
    return {"big": str(value)} if big else value


def main():
    definitions = standard_definitions()
    cases = [
        {"type": name, "values": plain(message)}
        for name in definitions
        for message in examples(definitions[name], 2, text=ASCII)  # it counts letters where CDR counts bytes
    ]
    asked = [
        {
            "type": case["type"],
            "definition": definitions[case["type"]].full_text(),
            "values": for_javascript(case["values"], "Int64" in case["type"]),
        }
        for case in cases
    ]
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "in.json"), Path(folder, "out.json")
        given.write_text(json.dumps(asked))
        subprocess.run(["node", HERE / "make_foxglove.mjs", given, made, sys.argv[1]], check=True)
        answer = json.loads(made.read_text())
    for case, packet in zip(cases, answer["packets"], strict=True):
        case["packet"] = packet
    text = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    versions = json.dumps(answer["versions"])
    (HERE / "foxglove.json").write_text(f'{{"versions": {versions}, "cases": [\n{text}\n]}}\n')


main()
