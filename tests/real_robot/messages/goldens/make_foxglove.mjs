// Writes foxglove.json: packets that @foxglove/rosmsg2-serialization makes of the messages in its input.
// node make_foxglove.mjs INPUT.json OUTPUT.json FOLDER, where FOLDER has node_modules, and INPUT.json is a list of
// {type, definition, values} as make_foxglove.py makes it. 64-bit integers come as {"big": "-1"}.
import fs from "fs";
import { createRequire } from "module";
const [, , input, output, folder] = process.argv;
const require = createRequire(folder + "/");
const { MessageReader, MessageWriter } = require("@foxglove/rosmsg2-serialization");
const { parse } = require("@foxglove/rosmsg");
const revive = (_, value) => {
  if (!value || typeof value !== "object") return value;
  if ("big" in value) return BigInt(value.big);
  return "nanosec" in value ? { ...value, nsec: value.nanosec } : value; // what it calls a time's nanoseconds
};
const cases = JSON.parse(fs.readFileSync(input, "utf8"), revive);
const version = (name) => require(`@foxglove/${name}/package.json`).version;
const packets = cases.map(({ type, definition, values }) => {
  const parsed = parse(definition, { ros2: true });
  const packet = Buffer.from(new MessageWriter(parsed).writeMessage(values));
  const again = Buffer.from(new MessageWriter(parsed).writeMessage(new MessageReader(parsed).readMessage(packet)));
  if (Buffer.compare(packet, again)) throw new Error(`${type} does not survive`);
  return packet.toString("hex");
});
const versions = Object.fromEntries(["rosmsg2-serialization", "rosmsg", "cdr"].map((name) => [name, version(name)]));
fs.writeFileSync(output, JSON.stringify({ versions, packets }));
