//! Wrong definitions and settings, each with the one problem that is to be named.

use super::{about_lakegate, about_table};

/// `(definition, what is said)`: each definition has this one problem.
const WRONG_TABLES: &[(&str, &str)] = &[
    ("", ":1:1: the table has no [source]"),
    ("source = []", ":1:10: source: the list of sources is empty"),
    ("[source]\nformat = \"csv\"", ":1:1: source: the source has neither `files` nor `table`"),
    ("[source]\nfiles = 3", ":2:9: source.files: found the number 3; expected a text"),
    ("[source]\nfiles = \"\"", ":2:9: source.files: the text is empty"),
    ("[source]\nfiles = \"ftp://x/y.csv\"", ":2:9: source.files: `ftp://x/y.csv` has a scheme"),
    ("[source]\nfiles = \"s3:///y.csv\"", ":2:9: source.files: `s3:///y.csv` names no bucket"),
    ("[source]\nfiles = \"s3://b*/y.csv\"", ":2:9: source.files: a bucket's name cannot have wildcards"),
    ("[source]\nfiles = \"a/[b.csv\"", ":2:9: source.files: \"a/[b.csv\" is no pattern"),
    ("[source]\nfiles = \"a/*\"", ":2:9: source.files: the ending of \"a/*\" does not tell"),
    (
        "[source]\nfiles = \"a.csv\"\nformat = \"cvs\"",
        ":3:10: source.format: found the text \"cvs\"; expected one of csv, parquet, ndjson, json; did you mean `csv`?",
    ),
    ("[source]\nfiles = \"a.csv\"\nformat = \"listing\"", ":3:10: source.format: `listing` is not built yet"),
    ("[source]\nfiles = \"a.csv\"\nencoding = \"utf8-8\"", ":3:12: source.encoding: \"utf8-8\" is no known encoding"),
    (
        "[source]\nfiles = \"a.csv\"\ndelimiter = \";;\"",
        ":3:13: source.delimiter: found \";;\"; expected one ASCII character",
    ),
    ("[source]\nfiles = \"a.csv\"\ndelimiter = \"\"", ":3:13: source.delimiter: the delimiter is empty"),
    ("[source]\nfiles = \"a.csv\"\ndelimiter = \"§\"", ":3:13: source.delimiter: found \"§\"; expected one ASCII"),
    (
        "[source]\nfiles = \"a.csv\"\ndelimiter = \"\\\"\"",
        ":3:13: source.delimiter: quote and delimiter are the same: both are `\\\"`",
    ),
    ("[source]\nfiles = \"a.csv\"\nquote = \",\"", ":3:9: source.quote: quote and delimiter are the same"),
    ("[source]\nfiles = \"a.csv\"\ncomment = \",\"", ":3:11: source.comment: comment and delimiter are the same"),
    ("[source]\nfiles = \"a.csv\"\ncomment = \"\\\"\"", ":3:11: source.comment: comment and quote are the same"),
    (
        "[source]\nfiles = \"a.csv\"\nnull_words = \"NA\"",
        ":3:14: source.null_words: found the text \"NA\"; expected a list",
    ),
    (
        "[source]\nfiles = \"a.csv\"\nnull_words = [\"\", 1]",
        ":3:19: source.null_words[2]: found the number 1; expected a text",
    ),
    (
        "[source]\nfiles = \"a.parquet\"\nheader = true",
        ":3:10: source.header: this key means something for csv files only",
    ),
    (
        "[source]\nfiles = \"a.csv\"\nheader = \"yes\"",
        ":3:10: source.header: found the text \"yes\"; expected true or false",
    ),
    (
        "[source]\nfiles = \"a.csv\"\nmode = \"append\"",
        ":3:1: source.mode: `mode` is no known key here; expected one of files, format, connection, delimiter, quote, header, encoding, null_words, comment, settle, table, method, timestamps, sub_microseconds, times, variants, offsets, max_cell, oversize, leave_out; did you mean `load.mode`?",
    ),
    ("[source]\nfiles = \"a.csv\"\nsql = \"select 1\"", ":3:1: source.sql: a table derived by SQL is not built yet"),
    (
        "[source]\nfiles = \"a.csv\"\n[transform]\nsql = \"select 1\"",
        ":3:2: transform: transforming by SQL is not built yet",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[[rules]]\nname = \"adult\"",
        ":3:3: rules: checking rows by rules is not built yet",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[load]\nevery = 30",
        ":4:9: load.every: found the number 30; expected a time such as",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[load]\nevery = \"30\"",
        ":4:9: load.every: \"30\" cannot be read: the unit is missing",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[load]\nevery = \"30sec\"",
        ":4:9: load.every: \"30sec\" cannot be read: `sec` is no unit here; expected a time such as \"30s\", \"10m\" or \"1h30m\"; did you mean `s`?",
    ),
    ("[source]\nfiles = \"a.csv\"\n[load]\nevery = \"0s\"", ":4:9: load.every: the time is zero"),
    ("[source]\nfiles = \"a.csv\"\n[load]\ncron = \"61 * * * *\"", ":4:8: load.cron: \"61 * * * *\" is no cron line"),
    (
        "[source]\nfiles = \"a.csv\"\n[load]\ncron = \"0 0 30 2 *\"",
        ":4:8: load.cron: \"0 0 30 2 *\" names no time that ever comes",
    ),
    ("[source]\nfiles = \"a.csv\"\n[load]\ncron = \"* * *\"", ":4:8: load.cron: \"* * *\" is no cron line"),
    (
        "[source]\nfiles = \"a.csv\"\n[load]\ncron = \"0 * * * *\"\nevery = \"1m\"",
        ":5:9: load.every: both `every` and `cron` are given",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[load]\nmode = \"upsert\"",
        ":4:8: load.mode: mode upsert replaces rows by their key, and the table has none",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[load]\nmax_rejects = 1.5",
        ":4:15: load.max_rejects: 1.5: the share is not between",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[load]\nmax_rejects = \"10\"",
        ":4:15: load.max_rejects: \"10\" cannot be read: the unit is missing",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[load]\nmax_rewrite = 0.5",
        ":4:15: load.max_rewrite: found the number 0.5; expected a number from 1",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[load]\ngroup = \"The Shop\"",
        ":4:9: load.group: \"The Shop\" is no name of a group",
    ),
    ("[source]\nfiles = \"a.csv\"\n[table]\nkey = \"id\"", ":4:7: table.key: found the text \"id\"; expected a list"),
    ("[source]\nfiles = \"a.csv\"\n[table]\nkey = [\"id\", \"ID\"]", ":4:14: table.key[2]: the key names `ID` twice"),
    (
        "[source]\nfiles = \"a.csv\"\n[table]\nkey = [\"order_idd\"]\n[[columns]]\nname = \"order_id\"\ntype = \"int\"",
        ":4:8: table.key[1]: the key names `order_idd`, which is not declared; expected one of order_id; did you mean `order_id`?",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[table]\nkey = [\"a\"]\n[[columns]]\nname = \"a\"\ntype = \"array<int>\"",
        ":4:8: table.key[1]: `a` is array<int>, which cannot be a key",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[table]\nkey = [\"a\"]\n[[columns]]\nname = \"a\"\ntype = \"double\"",
        ":4:8: warning: table.key[1]: `a` is double: floats compare badly",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[table]\nkey = [\"a\"]\n[[columns]]\nname = \"a\"\ntype = \"int\"\nnullable = true",
        ":8:12: columns[1].nullable: a column of the key cannot be nullable",
    ),
    ("[source]\nfiles = \"a.csv\"\n[[columns]]\ntype = \"int\"", ":3:1: columns[1]: the column has no `name`"),
    ("[source]\nfiles = \"a.csv\"\n[[columns]]\nname = \"a\"", ":3:1: columns[1]: the column has no `type`"),
    (
        "[source]\nfiles = \"a.csv\"\n[[columns]]\nname = \"a\"\ntype = \"varchar(20)\"",
        ":5:8: columns[1].type: `varchar(20)` is no column type",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[[columns]]\nname = \"a b\"\ntype = \"int\"",
        ":4:8: columns[1].name: \"a b\" has a character that names of columns in Delta tables cannot have; expected a name without spaces and ,;{}()=, such as name = \"a_b\" with from = \"a b\"",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[[columns]]\nname = \"a\"\ntype = \"struct<x: int, X: int>\"",
        ":5:8: columns[1].type: the struct has the field `X` twice",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[[columns]]\nname = \"a\"\ntype = \"int\"\nformats = [\"%Y\"]",
        ":6:11: columns[1].formats: formats are for dates and timestamps, and this column is int",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[[columns]]\nname = \"a\"\ntype = \"date\"\nformats = [\"%Q\"]",
        ":6:12: columns[1].formats[1]: \"%Q\" has a % code that is not known",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[[columns]]\nname = \"a\"\ntype = \"date\"\nformats = [\"DD/MM\"]",
        ":6:12: columns[1].formats[1]: \"DD/MM\" has no % code",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[[columns]]\nname = \"a\"\ntype = \"int\"\n[[columns]]\nname = \"a\"\ntype = \"int\"",
        ":7:8: columns[2].name: the column `a` is declared twice",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[[columns]]\nname = \"a\"\ntype = \"int\"\n[[columns]]\nname = \"A\"\ntype = \"int\"",
        ":7:8: columns[2].name: the columns `a` and `A` differ in case only",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[[columns]]\nname = \"a\"\ntype = \"int\"\n[[columns]]\nname = \"b\"\nfrom = \"a\"\ntype = \"int\"",
        ":8:8: columns[2].from: the columns `a` and `b` both come from `a`",
    ),
    (
        "[source]\nfiles = \"a.csv\"\n[load]\nmax_lag = \"1m\"",
        ":4:11: warning: load.max_lag: max_lag has no effect without max_rewrite",
    ),
    (
        "[source]\nfiles = \"s3://b/a.csv\"\nsettle = \"1s\"",
        ":3:10: warning: source.settle: settle has no effect on a bucket",
    ),
    ("[source]\nfiles = \"a.csv\"\nfiles = \"b.csv\"", ":3:1: files: the key stands here a second time"),
    ("[source]\nfiles = \"a.csv", ":2:15: this is no TOML: "),
    ("load = 3\n[source]\nfiles = \"a.csv\"", ":1:8: load: found the number 3; expected a table with keys of its own"),
];

#[test]
fn each_mistake_in_a_table_definition_is_named_at_its_place() {
    for (text, wanted) in WRONG_TABLES {
        let said = about_table(text);
        assert_eq!(said.len(), 1, "{text}\n{said:#?}");
        assert!(said[0].starts_with(wanted), "{text}\n   is: {}\nnot: {wanted}", said[0]);
    }
}

/// `(lakegate.toml, what is said)`: each has this one problem.
const WRONG_SETTINGS: &[(&str, &str)] = &[
    ("version = 2", ":1:11: version: found the number 2; expected 1, the only version"),
    (
        "[lakes]\nlocation = \"x\"",
        ":1:2: lakes: `lakes` is no known key here; expected one of version, lake, limits, serve, access, line, results, tickets, spool, history, logs, connections; did you mean `lake`?",
    ),
    (
        "location = \"x\"",
        ":1:1: location: `location` is no known key here; expected one of version, lake, limits, serve, access, line, results, tickets, spool, history, logs, connections; did you mean `lake.location`?",
    ),
    ("[lake]\nlocation = \"gs://x\"", ":2:12: lake.location: `gs://x` has a scheme"),
    ("[lake]\nlocation = \"s3://b/x*\"", ":2:12: lake.location: the lake is one place, not a pattern"),
    (
        "[lake]\nlocation = \"s3://b/x\"\nconnection = \"claud\"\n[connections.cloud]\ntype = \"s3\"",
        ":3:14: lake.connection: there is no [connections.claud] in lakegate.toml (there: cloud); did you mean `cloud`?",
    ),
    (
        "[lake]\ntarget_file_size = \"128mib\"",
        ":2:20: lake.target_file_size: \"128mib\" cannot be read: `mib` is no unit here; expected a size such as \"256MiB\" or \"4GB\"; did you mean `MiB`?",
    ),
    ("[lake]\nlease_lifetime = \"0s\"", ":2:18: lake.lease_lifetime: the time is zero"),
    ("[limits]\nmemory = \"1MiB\"", ":2:10: limits.memory: too little memory"),
    ("[limits]\nthreads = 1.5", ":2:11: limits.threads: found the number 1.5; expected a whole number"),
    ("[limits]\nquery_timeout = \"0m\"", ":2:17: limits.query_timeout: the time is zero"),
    ("[serve]\nflight = \"example.org:8815\"", ":2:10: serve.flight: \"example.org:8815\" is no address"),
    (
        "[serve]\nflight = \"0.0.0.0:8815\"\nallow_plaintext_network = true",
        ":2:10: warning: serve.flight: 0.0.0.0:8815 can be reached from other machines",
    ),
    ("[serve]\nhttp = \"127.0.0.1:80\"", ":2:1: serve.http: the HTTP service is not built yet"),
    ("[[line]]\nrate = \"100Mbit/s\"", ":1:1: line[1]: the line has no networks"),
    (
        "[[line]]\nnetworks = [\"10.0.0.0/8\"]",
        ":1:1: line[1]: the line says neither what it carries nor that it is fast",
    ),
    (
        "[[line]]\nnetworks = [\"10.1.0.0/8\"]\nfast = true",
        ":2:13: line[1].networks[1]: \"10.1.0.0/8\" is no network; expected a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"; did you mean `10.0.0.0/8`?",
    ),
    (
        "[[line]]\nnetworks = [\"10.1.2.3\"]\nfast = true",
        ":2:13: line[1].networks[1]: \"10.1.2.3\" is no network; expected a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"; did you mean `10.1.2.3/32`?",
    ),
    (
        "[[line]]\nnetworks = [\"10.0.0.0/8\", \"10.0.0.0/8\"]\nfast = true",
        ":2:27: line[1].networks[2]: 10.0.0.0/8 is behind a line already",
    ),
    (
        "[[line]]\nnetworks = [\"10.0.0.0/8\"]\nrate = \"100mbit/s\"",
        ":3:8: line[1].rate: \"100mbit/s\" cannot be read: `mbit/s` is no unit here",
    ),
    ("[[line]]\nnetworks = [\"10.0.0.0/8\"]\nrate = \"1kbit/s\"", ":3:8: line[1].rate: the rate is too low"),
    (
        "[[line]]\nnetworks = [\"10.0.0.0/8\"]\nfast = true\ncodec = \"zstd\"",
        ":4:9: line[1].codec: the line is fast, so nothing is compressed there; expected fast = true, or a codec",
    ),
    (
        "[[line]]\nnetworks = [\"10.0.0.0/8\"]\nrate = \"1Mbit/s\"\ncodec = \"gzip\"",
        ":4:9: line[1].codec: found the text \"gzip\"; expected one of auto, zstd, lz4, none",
    ),
    ("[results]\ncodec = \"zst\"", ":2:9: results.codec: found the text \"zst\""),
    ("[results]\nprecision = \"rounded\"", ":2:1: results.precision"),
    (
        "[[line]]\nnetworks = [\"10.0.0.0/8\"]\nfast = true\n[line.weights]\nadmin = 0",
        ":5:9: line[1].weights.admin: found the number 0; expected a number from 0.01 to 100",
    ),
    ("[logs]\nlevel = \"verbose\"", ":2:9: logs.level: \"verbose\" is no level"),
    (
        "[logs]\nlevel = \"wran\"",
        ":2:9: logs.level: \"wran\" is no level; expected error, warn, info, debug, trace or off, or a filter as in \"info,lakegate::lake=debug\"; did you mean `warn`?",
    ),
    ("[logs]\nlevel = \"info,x=loud\"", ":2:9: logs.level: \"info,x=loud\" is no level"),
    (
        "[logs]\nformat = \"JSON\"",
        ":2:10: logs.format: found the text \"JSON\"; expected one of human, json; did you mean `json`?",
    ),
    (
        "[connections.ops]\nregion = \"x\"",
        ":1:14: connections.ops: the connection has no `type`; expected type = \"s3\" or type = \"sqlserver\"",
    ),
    (
        "[connections.ops]\ntype = \"mysql\"",
        ":2:8: connections.ops.type: found the text \"mysql\"; expected one of s3, sqlserver",
    ),
    (
        "[connections.ops]\ntype = \"s3\"\naccess_key_id = { env = \"KEY_ID\" }",
        ":1:14: connections.ops: access_key_id and secret_access_key belong together",
    ),
    (
        "[connections.ops]\ntype = \"s3\"\nendpoint = \"http://x\"",
        ":3:12: connections.ops.endpoint: the endpoint is not encrypted",
    ),
    (
        "[connections.ops]\ntype = \"s3\"\nendpoint = \"ftp://x\"",
        ":3:12: connections.ops.endpoint: an address with scheme `ftp`",
    ),
    ("[connections.ops]\ntype = \"s3\"\nendpoint = \"x\"", ":3:12: connections.ops.endpoint: this is no address"),
    ("connections = 3", ":1:15: connections: found the number 3"),
];

#[test]
fn each_mistake_in_lakegate_toml_is_named_at_its_place() {
    for (text, wanted) in WRONG_SETTINGS {
        let said = about_lakegate(text);
        assert_eq!(said.len(), 1, "{text}\n{said:#?}");
        assert!(said[0].starts_with(wanted), "{text}\n   is: {}\nnot: {wanted}", said[0]);
    }
}
