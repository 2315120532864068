// Two Flight SQL clients for Node.js: one in Rust under a thin shell, one in JavaScript over @grpc/grpc-js.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, describe, test } from "node:test";

import gizmo from "@gizmodata/gizmosql-client";
import lakehouse from "@lakehouse-rs/flight-sql-client";

import { arrow, text } from "./text.js";

const host = required("LAKEGATE_HOST");
const port = Number(required("LAKEGATE_PORT"));
const expected = JSON.parse(readFileSync(required("LAKEGATE_EXPECTED"), "utf8"));
const ROWS = 10;

function required(name) {
  if (!process.env[name]) throw new Error(`${name} is not set; run this through \`make test-clients\``);
  return process.env[name];
}

function rust(headers = []) {
  return lakehouse.createFlightSqlClient({ host, port, tls: false, headers, username: "anybody", password: "pass:word" });
}

const opened = [];
after(() => opened.forEach((client) => client.close?.()));

function javascript() {
  const client = new gizmo.FlightSQLClient({ host, port, plaintext: true, username: "anybody", password: "pass:word" });
  opened.push(client);
  return client;
}

const CLIENTS = {
  "node-rust": async (sql) => arrow.tableFromIPC(await (await rust()).query(sql)),
  "node-javascript": (sql) => javascript().execute(sql),
};

/** The texts of a table's only column. */
function texts(table) {
  const [column] = table.schema.fields.map((_, at) => table.getChildAt(at));
  return column.data.flatMap((data) => Array.from({ length: data.length }, (_, at) => text(data, at)));
}

for (const [name, query] of Object.entries(CLIENTS)) {
  describe(name, () => {
    for (const column of expected.columns) {
      test(`${column.name} arrives as expected`, async () => {
        const client = expected.clients[name];
        const differs = client.differs[column.name] ?? {};
        const sql = `select ${column.name} from types.matrix order by id`;
        if (differs.error) {
          await assert.rejects(query(sql), (error) => String(error).includes(differs.error));
          return;
        }
        const values = differs.values ?? column.values;
        const table = await query(sql);
        assert.deepEqual(texts(table), [...values, ...Array(ROWS - values.length).fill("null")]);
        assert.equal(String(table.schema.fields[0].type), client.types[column.name]);
      });
    }

    test("shapes", async () => {
      assert.equal((await query("select * from shapes.nothing")).numRows, 0);
      assert.deepEqual((await query("select * from shapes.one")).toArray().map((row) => row.toJSON()), [{ n: 1n }]);
      const million = await query("select n, word, half from shapes.million order by n");
      assert.equal(million.numRows, 1_000_000);
      const numbers = million.getChild("n");
      for (let at = 0; at < 1_000_000; at += 997) assert.equal(numbers.get(at), BigInt(at));
    });

    test("a mistake is an error", async () => {
      // The client in Rust keeps the server's words to itself.
      const told = (word) => (error) => String(error).includes(name === "node-rust" ? "failed to prepare" : word);
      await assert.rejects(query("select no_such_column from types.matrix"), told("no_such_column"));
      await assert.rejects(query("select * from types.no_such_table"), told("no_such_table"));
    });
  });
}

test("the client in Rust is sent no compressed rows unless it asks, for nothing says that it unpacks them", async () => {
  const sql = "select n from shapes.million order by n limit 10";
  const plain = arrow.tableFromIPC(await (await rust()).query(sql));
  assert.equal(plain.numRows, 10);
  await assert.rejects((await rust([{ key: "lakegate-codec", value: "gzip" }])).query(sql));
});

test("the client in Rust says how its rows come", async () => {
  const sql = "select word, half from shapes.million where n < 4 order by n";
  for (const [key, value, kinds] of [
    ["lakegate-codec", "none", ["Utf8", "Float64"]],
    ["lakegate-precision", "rounded", ["Utf8", "Float32"]],
  ]) {
    const table = arrow.tableFromIPC(await (await rust([{ key, value }])).query(sql));
    assert.deepEqual([table.numRows, table.schema.fields.map((field) => String(field.type))], [4, kinds]);
  }
});

// The client in Rust takes messages of 4 MiB, cannot be told otherwise, and never answers after a larger one.
test("a cell of 20 MB arrives in JavaScript", async () => {
  const cells = (await CLIENTS["node-javascript"]("select cell from shapes.giant order by id")).getChildAt(0);
  assert.deepEqual([cells.get(0).length, cells.get(1)], [20 << 20, "small"]);
});

test("both clients browse", async () => {
  const options = { dbSchemaFilterPattern: "types", includeSchema: false };
  const tables = arrow.tableFromIPC(await (await rust()).getTables(options));
  assert.deepEqual([...tables.getChild("table_name")], ["beyond", "matrix"]);
  const client = javascript();
  assert.deepEqual(await client.getCatalogs(), ["lakegate"]);
  assert.deepEqual((await client.getTables(undefined, "types")).map((table) => table.tableName), ["beyond", "matrix"]);
  assert.ok((await client.getSqlInfo([])).size > 80);
});
