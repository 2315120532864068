// What apache-arrow holds, as the text that expected.json has for it. Times and decimals are read from their own
// integers: as JavaScript numbers they would lose digits.
import { createRequire } from "node:module";

// As CommonJS, which is how the clients load it: classes of the two kinds of module are not each other's.
export const arrow = createRequire(import.meta.url)("apache-arrow");
const { DataType, Type, Vector } = arrow;

/** The text of a value of a chunk of a column. */
export function text(data, at) {
  if (!data.getValid(at)) return "null";
  const type = data.type;
  switch (type.typeId) {
    case Type.Struct:
      return `{${type.children.map((field, child) => `${field.name}: ${text(data.children[child], at)}`).join(", ")}}`;
    case Type.List:
      return `[${items(data, at, (item) => text(data.children[0], item)).join(", ")}]`;
    case Type.Map: {
      const [keys, values] = data.children[0].children;
      return `{${items(data, at, (item) => `${text(keys, item)} => ${text(values, item)}`).join(", ")}}`;
    }
    case Type.Timestamp:
      return moment(data.values[at]) + (type.timezone ? "Z" : "");
    case Type.Decimal:
      return decimal(data.values.subarray(4 * at, 4 * at + 4), type.scale);
    default:
      return leaf(type, new Vector([data]).get(at));
  }
}

function items(data, at, read) {
  const found = [];
  for (let item = data.valueOffsets[at]; item < data.valueOffsets[at + 1]; item++) found.push(read(item));
  return found;
}

function leaf(type, value) {
  if (DataType.isFloat(type)) return bits(value);
  if (DataType.isDate(type)) return new Date(Number(value)).toISOString().slice(0, 10);
  if (DataType.isUtf8(type)) return `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
  if (DataType.isBinary(type)) return `x'${Buffer.from(value).toString("hex")}'`;
  return String(value);
}

function bits(value) {
  if (Number.isNaN(value)) return "nan";
  const buffer = Buffer.alloc(8);
  buffer.writeDoubleBE(value);
  return `f${buffer.toString("hex")}`;
}

function moment(microseconds) {
  const rest = ((microseconds % 1_000_000n) + 1_000_000n) % 1_000_000n;
  const seconds = new Date(Number((microseconds - rest) / 1000n)).toISOString().slice(0, 19);
  return `${seconds}.${String(rest).padStart(6, "0")}`;
}

function decimal(words, scale) {
  const bits = words.reduceRight((number, word) => (number << 32n) | BigInt(word), 0n);
  const number = BigInt.asIntN(128, bits);
  const digits = String(number < 0n ? -number : number).padStart(scale + 1, "0");
  const point = scale === 0 ? digits : `${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
  return number < 0n ? `-${point}` : point;
}
