//! Whole configurations in temporary folders: what they become, and what is said about wrong ones.

pub(super) mod broken;
mod guide;
mod mistakes;
mod sqlserver;
mod writable;

use std::fs;
use std::time::Duration;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::model::{Codec, ColumnType, LoadMode, Location};

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn environment(name: &str) -> Option<String> {
    match name {
        "KEY_ID" => Some("AKIA-hidden".to_owned()),
        "KEY" => Some("s3cret-hidden".to_owned()),
        "TICKET_KEY" => Some("00".repeat(32)),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn report(files: &[(&str, &str)]) -> Report {
    check_with(folder(files).path(), None, &environment)
}

fn settings(files: &[(&str, &str)]) -> Settings {
    let report = report(files);
    assert!(Problems::of(&report.problems).is_none(), "{:#?}", report.problems);
    report.settings.unwrap()
}

fn problems(files: &[(&str, &str)]) -> Vec<String> {
    report(files).problems.iter().map(ToString::to_string).collect()
}

/// What is said about one table definition, without the file's name.
fn about_table(text: &str) -> Vec<String> {
    let said = problems(&[("tables/ops/orders.toml", text)]);
    said.iter().map(|problem| problem.strip_prefix("tables/ops/orders.toml").unwrap().to_owned()).collect()
}

/// What is said about one `lakegate.toml`, without the file's name.
fn about_lakegate(text: &str) -> Vec<String> {
    let said = problems(&[("lakegate.toml", text)]);
    said.iter().map(|problem| problem.strip_prefix("lakegate.toml").unwrap().to_owned()).collect()
}

fn table(text: &str) -> TableDefinition {
    let mut settings = settings(&[
        ("lakegate.toml", "[connections.cloud]\ntype = \"s3\"\nregion = \"eu-1\""),
        ("tables/ops/orders.toml", text),
    ]);
    settings.tables.remove(&"ops.orders".parse().unwrap()).unwrap()
}

fn file_sources(table: &TableDefinition) -> &[FileSource] {
    let TableSource::Files(files) = &table.source else { panic!("{:?}", table.source) };
    files
}

#[test]
fn an_empty_folder_works_on_one_machine_with_no_services() {
    let empty = folder(&[]);
    let settings = load(empty.path(), None).unwrap();
    assert_eq!(settings.lake.location, Location::Local(empty.path().join("lake")));
    assert_eq!(settings.lake.target_file_size, 128 << 20);
    assert_eq!(settings.serve.flight.to_string(), "127.0.0.1:8815");
    assert_eq!(settings.limits.parallel_tables.get(), 2);
    assert_eq!(settings.limits.query_timeout, Duration::from_secs(600));
    assert!(settings.limits.memory >= 512 << 20);
    assert!(settings.tables.is_empty() && settings.warnings.is_empty());
    assert_eq!(settings.results, ResultSettings::default());
    assert_eq!((settings.logs.level.as_str(), settings.logs.format), ("info", LogFormat::Human));
}

#[test]
fn every_key_of_lakegate_toml_is_read() {
    let text = r#"
        version = 1
        [lake]
        location = "s3://bucket/lake"
        connection = "cloud"
        target_file_size = "64MiB"
        lease_lifetime = "10s"
        [limits]
        memory = "1GiB"
        spill = "5GB"
        spill_folder = "spill"
        threads = 3
        parallel_tables = 4
        query_timeout = "1m"
        lease_wait = "0s"
        max_result_bytes = "2GB"
        [serve]
        flight = "0.0.0.0:0"
        allow_anonymous_network = true
        allow_plaintext_network = true
        drain = "5s"
        [[line]]
        networks = ["10.0.0.0/8", "2001:db8::/32"]
        rate = "100Mbit/s"
        codec = "lz4"
        dictionaries = false
        [line.weights]
        admin = 2
        [[line]]
        networks = ["10.9.0.0/16"]
        fast = true
        [[line]]
        networks = ["10.8.0.0/16"]
        codec = "none"
        [results]
        codec = "zstd"
        dictionaries = true
        [tickets]
        key = { env = "TICKET_KEY" }
        lifetime = "2h"
        [logs]
        level = "info,lakegate::lake=debug"
        format = "json"
        [connections.cloud]
        type = "s3"
        endpoint = "http://127.0.0.1:9000"
        region = "eu-1"
        access_key_id = { env = "KEY_ID" }
        secret_access_key = { file = "secret.txt" }
        allow_http = true
    "#;
    let settings = settings(&[("lakegate.toml", text), ("secret.txt", "from-a-file\n")]);
    assert_eq!(settings.lake.location.to_string(), "s3://bucket/lake");
    let connection = settings.lake.connection.as_ref().unwrap();
    assert_eq!(connection.secret_access_key.as_ref().unwrap().expose_secret(), "from-a-file");
    assert_eq!(connection.access_key_id.as_ref().unwrap().expose_secret(), "AKIA-hidden");
    assert_eq!(settings.limits.memory, 1 << 30);
    assert_eq!(settings.limits.spill, 5_000_000_000);
    assert_eq!(settings.limits.spill_folder, Some(settings.folder.join("spill")));
    assert_eq!((settings.limits.threads.get(), settings.limits.parallel_tables.get()), (3, 4));
    assert_eq!(settings.limits.lease_wait, Duration::ZERO);
    assert_eq!(settings.limits.serving.max_result_bytes, Some(2_000_000_000));
    assert_eq!(settings.serve.flight.to_string(), "0.0.0.0:0");
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    let [office, backbone, lab] = settings.lines.as_slice() else { panic!("{:?}", settings.lines) };
    assert_eq!(
        (office.name().as_str(), office.rate, office.fast),
        ("10.0.0.0/8, 2001:db8::/32", Some(100_000_000), false)
    );
    assert_eq!(office.weights.get("admin"), Some(&2.0));
    assert_eq!((backbone.name().as_str(), backbone.rate, backbone.fast), ("10.9.0.0/16", None, true));
    let defaults = [office, backbone, lab].map(|line| (line.codec, line.dictionaries));
    let only = |codec| Some(CodecDefault::Only(codec));
    assert_eq!(defaults, [(only(Codec::Lz4), Some(false)), (None, None), (only(Codec::None), None)]);
    assert_eq!(settings.results, ResultSettings { codec: CodecDefault::Only(Codec::Zstd), dictionaries: true });
    assert_eq!(settings.tickets.lifetime, Duration::from_secs(7200));
    assert_eq!(settings.logs.format, LogFormat::Json);
}

#[test]
fn every_key_of_a_table_definition_is_read() {
    let table = table(
        r#"
        description = "Orders of all shops"
        [[source]]
        files = "landing/*.txt.gz"
        format = "csv"
        delimiter = ";"
        quote = "'"
        header = false
        encoding = "latin1"
        null_words = ["", "NA"]
        comment = "\#"
        settle = "5s"
        [[source]]
        files = "s3://bucket/orders/**/*.parquet"
        connection = "cloud"
        [load]
        cron = "0 * * * *"
        mode = "upsert"
        max_rejects = "2%"
        max_rewrite = 20
        max_lag = "5m"
        group = "shop"
        [table]
        key = ["order_id"]
        [[columns]]
        name = "order_id"
        from = "Order ID"
        type = "bigint"
        [[columns]]
        name = "day"
        type = "date"
        formats = ["%d/%m/%Y"]
        nullable = false
        "#
        .replace("\\#", "#")
        .as_str(),
    );
    assert_eq!(table.description.as_deref(), Some("Orders of all shops"));
    let FileFormat::Csv(csv) = &file_sources(&table)[0].format else { panic!("{:?}", file_sources(&table)[0]) };
    assert_eq!((csv.delimiter, csv.quote, csv.header, csv.comment), (b';', Some(b'\''), false, Some(b'#')));
    assert_eq!((csv.encoding.name(), csv.null_words.len()), ("windows-1252", 2));
    assert_eq!(file_sources(&table)[0].settle, Duration::from_secs(5));
    assert!(matches!(file_sources(&table)[1].format, FileFormat::Parquet));
    assert_eq!(file_sources(&table)[1].connection.as_ref().unwrap().region.as_deref(), Some("eu-1"));
    assert!(matches!(&table.load.schedule, Some(Schedule::Cron(_))));
    assert_eq!((table.load.mode, table.load.max_rejects, table.load.max_rewrite), (LoadMode::Upsert, 0.02, Some(20.0)));
    assert_eq!((table.load.max_lag, table.load.group.as_deref()), (Duration::from_secs(300), Some("shop")));
    assert_eq!(table.key, ["order_id"]);
    assert_eq!(table.columns[0].from.as_deref(), Some("Order ID"));
    assert_eq!(table.columns[0].column_type, ColumnType::Bigint);
    assert!(!table.columns[0].nullable, "a column of the key is never null");
    assert_eq!((table.columns[1].formats.len(), table.columns[1].nullable), (1, false));
    assert_eq!(table.content_hash.len(), 64);
}

#[test]
fn defaults_of_a_table_definition_are_the_documented_ones() {
    let table = table("[source]\nfiles = \"a/*.csv\"");
    assert_eq!((table.load.mode, table.load.max_rejects, table.load.max_rewrite), (LoadMode::Append, 0.1, None));
    assert!(table.load.schedule.is_none() && table.key.is_empty() && table.columns.is_empty());
    let FileFormat::Csv(csv) = &file_sources(&table)[0].format else { panic!("{:?}", file_sources(&table)[0]) };
    assert_eq!((csv.delimiter, csv.quote, csv.header, csv.comment), (b',', Some(b'"'), true, None));
    assert_eq!((csv.encoding, csv.null_words.as_slice()), (encoding_rs::UTF_8, [String::new()].as_slice()));
    assert_eq!(file_sources(&table)[0].settle, Duration::from_secs(1));
}

#[test]
fn the_format_is_told_by_the_ending() {
    for (files, wanted) in [
        ("a/*.csv", "Csv"),
        ("a/b.TSV.gz", "Csv"),
        ("a/b.parquet", "Parquet"),
        ("a/**/*.jsonl.zst", "Ndjson"),
        ("a/*.ndjson.bz2", "Ndjson"),
        ("s3://b/x.json", "Json"),
    ] {
        let table = table(&format!("[source]\nfiles = \"{files}\""));
        let format = format!("{:?}", file_sources(&table)[0].format);
        assert!(format.starts_with(wanted), "{files}: {format}");
        if let FileFormat::Csv(csv) = &file_sources(&table)[0].format {
            assert_eq!(csv.delimiter == b'\t', files.contains("TSV"));
        }
    }
}

#[test]
fn no_secret_shows_in_debug_or_in_any_problem() {
    let text = r#"
        [tickets]
        key = { env = "KEY" }
        [connections.a]
        type = "s3"
        access_key_id = "plain-hidden"
        secret_access_key = { value = "table-hidden" }
        [connections.b]
        type = "s3"
        endpoint = "https://user:password-hidden@host"
        access_key_id = { env = "KEY_ID" }
        secret_access_key = ["list-hidden"]
        [connections.c]
        type = "s3"
        access_key_id = { env = "KEY_ID" }
        secret_access_key = "unfinished-hidden
    "#;
    let whole = text.replace("\"unfinished-hidden", "{ env = \"KEY\" }");
    for text in [text, whole.as_str()] {
        let report = report(&[("lakegate.toml", text)]);
        assert!(!report.problems.is_empty());
        let said = format!("{:?} {}", report, Problems::of(&report.problems).unwrap());
        assert!(!said.contains("hidden"), "{said}");
    }
    let good =
        "[connections.a]\ntype = \"s3\"\naccess_key_id = { env = \"KEY_ID\" }\nsecret_access_key = { env = \"KEY\" }";
    let settings = settings(&[("lakegate.toml", good)]);
    assert!(!format!("{settings:?}").contains("hidden"));
}

#[test]
fn a_secret_that_cannot_be_had_names_where_it_was_to_come_from() {
    let said = about_lakegate("[tickets]\nkey = { env = \"NOWHERE\" }");
    assert_eq!(
        said,
        [":2:7: tickets.key: the secret cannot be read from the environment variable NOWHERE: it is not set"]
    );
    assert!(about_lakegate("[tickets]\nkey = { env = \"EMPTY\" }")[0].contains("EMPTY: it is empty"));
    assert!(about_lakegate("[tickets]\nkey = { file = \"none\" }")[0].contains("the file none: No such file"));
    assert!(about_lakegate("[tickets]\nkey = { env = \"KEY\" }")[0].contains("32 random bytes"));
    assert!(about_lakegate("[tickets]\nkey = \"x\"")[0].contains("does not stand in this file"));
    let said = about_lakegate("[tickets]\nkey = { evn = \"KEY\" }");
    assert!(said.iter().any(|problem| problem.contains("did you mean `env`?")), "{said:?}");
}

#[test]
fn problems_of_all_files_come_in_one_go_in_the_order_of_their_places() {
    let said = problems(&[
        ("lakegate.toml", "[limits]\nmemory = \"lots\"\nthreads = 0\n[serve]\nflihgt = \"x\""),
        ("tables/a/one.toml", "[source]\nfiles = \"x.csv\"\n[load]\nevery = \"30x\"\nmode = \"apend\""),
        ("tables/a/two.toml", "= broken"),
        ("tables/a/three.toml", "[source]\nfiles = \"x.csv\"\nconnection = \"cloud\""),
    ]);
    let starts = [
        "lakegate.toml:2:10: limits.memory: \"lots\" cannot be read: a number is missing before the unit; expected a size",
        "lakegate.toml:3:11: limits.threads: found the number 0; expected a whole number from 1",
        "lakegate.toml:5:1: serve.flihgt: `flihgt` is no known key here; expected one of flight, tls, allow_anonymous_network, allow_plaintext_network, drain; did you mean `flight`?",
        "tables/a/one.toml:4:9: load.every: \"30x\" cannot be read: `x` is no unit here; expected a time",
        "tables/a/one.toml:5:8: load.mode: found the text \"apend\"; expected one of append, upsert, replace, mirror; did you mean `append`?",
        "tables/a/three.toml:3:14: source.connection: a local path is reached without a connection",
        "tables/a/three.toml:3:14: source.connection: there is no [connections.cloud] in lakegate.toml (there: none)",
        "tables/a/two.toml:1:1: this is no TOML: ",
    ];
    assert_eq!(said.len(), starts.len(), "{said:#?}");
    for (said, start) in said.iter().zip(starts) {
        assert!(said.starts_with(start), "{said}\n{start}");
    }
}

#[test]
fn a_table_does_not_repeat_what_is_wrong_with_its_connection() {
    let uses = "[source]\nfiles = \"s3://b/x.csv\"\nconnection = \"cloud\"";
    for lakegate in ["[connections.cloud]\ntype = \"s4\"", "connections = 3", "= broken"] {
        let said = problems(&[("lakegate.toml", lakegate), ("tables/a/b.toml", uses)]);
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].starts_with("lakegate.toml"), "{said:#?}");
    }
}

#[test]
fn files_that_are_no_definitions_are_named_or_left_alone() {
    const GOOD: &str = "[source]\nfiles = \"a.csv\"";
    let said = problems(&[
        ("tables/README.md", "hello"),
        ("tables/.hidden.toml", "?"),
        ("tables/notes/readme.txt", "hello"),
        ("tables/ops/orders.toml", GOOD),
        ("tables/ops/.orders.toml.swp", "?"),
        ("tables/stray.toml", GOOD),
        ("tables/ops/deep/er.toml", GOOD),
        ("tables/ops/Orders.toml", GOOD),
        ("tables/ops/2fast.toml", GOOD),
        ("tables/ops/loud.TOML", GOOD),
        ("tables/system/loads.toml", GOOD),
    ]);
    for start in [
        "tables/stray.toml: a definition stands in the folder of its schema; expected tables/<schema>/<table>.toml",
        "tables/ops/deep: folders of schemas have no folders with definitions",
        "tables/ops/Orders.toml: `ops.Orders` is not a table name: each part starts with a lower-case letter",
        "tables/ops/orders.toml: the file's name differs from tables/ops/Orders.toml in case only",
        "tables/ops/2fast.toml: `ops.2fast` is not a table name",
        "tables/ops/loud.TOML: the file's ending is not in lower case",
        "tables/system/loads.toml: the schema `system` is lakegate's own",
    ] {
        assert!(said.iter().any(|said| said.starts_with(start)), "{start}\n{said:#?}");
    }
    assert_eq!(said.len(), 7, "{said:#?}");
}

#[test]
fn a_file_that_is_no_text_is_named_with_the_place() {
    let folder = folder(&[]);
    fs::create_dir_all(folder.path().join("tables/a")).unwrap();
    fs::write(folder.path().join("tables/a/b.toml"), b"# ok\nx = \"\xff\"").unwrap();
    let said = load(folder.path(), None).unwrap_err().to_string();
    assert!(said.starts_with("tables/a/b.toml:2:6: the file is not UTF-8 text"), "{said}");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_not_matter() {
    let table = table("\u{feff}[source]\r\nfiles = \"a.csv\"\r\n");
    assert_eq!(file_sources(&table).len(), 1);
    let said = about_table("\u{feff}[source]\r\nfiles = \"a.csv\"\r\nx = 1\r\n");
    assert!(said[0].starts_with(":3:1: source.x"), "{said:?}");
    let said = about_table("\u{feff}x = 1\r\n[source]\r\nfiles = \"a.csv\"\r\n");
    assert!(said[0].starts_with(":1:1: x"), "{said:?}");
}

#[test]
fn a_file_that_was_named_has_to_exist_and_one_that_was_not_need_not() {
    let folder = folder(&[("other.toml", "[limits]\nthreads = 7")]);
    assert!(load(folder.path(), None).is_ok());
    let settings = load(folder.path(), Some(Path::new("other.toml"))).unwrap();
    assert_eq!(settings.limits.threads.get(), 7);
    let error = load(folder.path(), Some(Path::new("none.toml"))).unwrap_err().to_string();
    assert!(error.starts_with("none.toml: the file cannot be read"), "{error}");
}

#[test]
fn a_changed_text_changes_the_hash_and_nothing_else_does() {
    let (one, two) = (table("[source]\nfiles = \"a.csv\""), table("[source]\nfiles = \"a.csv\""));
    assert_eq!(one.content_hash, two.content_hash);
    assert_ne!(one.content_hash, table("[source]\nfiles = \"a.csv\" # new").content_hash);
}

#[test]
fn writing_every_default_changes_nothing() {
    let lakegate = defaults(&json_schema(Format::Lakegate));
    let table_text = format!("{}\n[source]\nfiles = \"a.csv\"", defaults(&json_schema(Format::Table)));
    let folder = folder(&[("tables/a/b.toml", "[source]\nfiles = \"a.csv\"")]);
    let before = load(folder.path(), None).unwrap();
    fs::write(folder.path().join("lakegate.toml"), lakegate).unwrap();
    fs::write(folder.path().join("tables/a/b.toml"), table_text).unwrap();
    let mut after = load(folder.path(), None).unwrap();
    for (name, table) in &mut after.tables {
        table.content_hash.clone_from(&before.tables[name].content_hash);
    }
    after.warnings.clear();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}

/// TOML that writes every default of the sections of a schema.
fn defaults(schema: &serde_json::Value) -> String {
    let mut text = String::new();
    for (section, schema) in schema["properties"].as_object().unwrap() {
        let keys = schema["properties"].as_object().into_iter().flatten();
        let written: Vec<_> =
            keys.filter_map(|(key, schema)| Some(format!("{key} = {}", schema.get("default")?))).collect();
        if !written.is_empty() {
            text.push_str(&format!("[{section}]\n{}\n", written.join("\n")));
        }
    }
    assert!(text.contains(" = "), "no defaults found in {schema}");
    text
}

#[test]
fn the_schemas_know_every_key_with_its_meaning() {
    let lakegate = json_schema(Format::Lakegate);
    assert_eq!(lakegate["properties"]["limits"]["properties"]["parallel_tables"]["default"], 2);
    assert_eq!(lakegate["properties"]["limits"]["additionalProperties"], false);
    let table = json_schema(Format::Table);
    let paths = schema::key_paths(&table);
    for path in ["source.files", "load.max_rejects", "table.key", "columns.type", "description"] {
        assert!(paths.iter().any(|known| known == path), "{path} {paths:?}");
    }
    assert!(schema::key_paths(&lakegate).iter().any(|path| path == "connections.NAME.secret_access_key.env"));
}

#[test]
fn a_folder_whose_name_is_a_pattern_is_named_before_it_matches_nothing() {
    let outer = folder(&[("[old]/tables/a/b.toml", "[source]\nfiles = \"a.csv\"")]);
    let said = load(&outer.path().join("[old]"), None).unwrap_err().to_string();
    assert!(said.starts_with("tables/a/b.toml:2:9: source.files: the folder ") && said.contains("wildcard"), "{said}");
}

#[test]
fn who_is_let_in_is_read_with_its_files() {
    let text = r#"
        [serve]
        tls = { certificate = "c.pem", key = "k.pem", client_ca = "ca.pem" }
        [access]
        users = "who/users.toml"
        session_lifetime = "1h"
        certificate_name = "email"
        [access.oidc]
        issuer = "https://login.example"
        audience = ["lakegate", "other"]
        jwks = "https://login.example/keys"
        name_claim = "email"
        role_claims = ["realm_access.roles"]
    "#;
    let settings = settings(&[
        ("lakegate.toml", text),
        ("who/users.toml", "[users.ann]\nroles = [\"sales\"]"),
        ("grants.toml", "[[grant]]\nto = \"sales\"\non = \"*\""),
        ("c.pem", ""),
        ("k.pem", ""),
        ("ca.pem", ""),
    ]);
    let access = &settings.access;
    assert_eq!(access.users_file, settings.folder.join("who/users.toml"));
    assert!(
        access.is_closed() && access.certificates && access.files.users.as_ref().unwrap().users.contains_key("ann")
    );
    assert_eq!(access.files.grants.as_ref().unwrap().grants.len(), 1);
    assert_eq!((access.session_lifetime, access.certificate_name), (Duration::from_secs(3600), CertificateName::Email));
    let oidc = access.oidc.as_ref().unwrap();
    assert_eq!((oidc.audience.len(), oidc.name_claim.as_str(), oidc.clock_skew), (2, "email", Duration::from_secs(60)));
    assert_eq!(settings.serve.tls.as_ref().unwrap().client_ca, Some(settings.folder.join("ca.pem")));
}

#[test]
fn what_would_let_anybody_in_is_an_error_or_a_warning() {
    for (text, wanted) in [
        ("[access]\nusers = \"none.toml\"", "none.toml: the file cannot be read"),
        ("[access.oidc]\nissuer = \"x\"\naudience = \"y\"", "`jwks` is missing"),
        ("[access.oidc]\nissuer = \"x\"\naudience = []\njwks = \"keys.json\"", "one audience at least"),
        (
            "[access.oidc]\nissuer = \"x\"\naudience = \"y\"\njwks = \"http://login.example/keys\"",
            "keys cannot be trusted that come from",
        ),
        ("[serve.tls]\ncertificate = \"c.pem\"", "`key` is missing"),
        ("[serve.tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"", "the file c.pem cannot be read"),
        ("[serve]\nflight = \"0.0.0.0:1\"", "allow_anonymous_network = true"),
        ("[serve]\nflight = \"0.0.0.0:1\"\nallow_anonymous_network = true", "allow_plaintext_network = true"),
    ] {
        let said = problems(&[("lakegate.toml", text)]);
        assert!(said.iter().any(|said| said.contains(wanted)), "{text}: {said:?}");
    }
}

#[test]
fn what_is_said_of_the_programs_own_tables_is_not_passed_over() {
    for (text, wanted) in [
        ("[[row_filter]]\non = \"system.queries\"\nwhere = \"false\"", "nothing can be kept back of system.queries"),
        (
            "[[mask]]\non = \"system.rejects\"\ncolumn = \"row\"\nas = \"null\"",
            "nothing can be kept back of system.rejects",
        ),
        ("[[row_filter]]\non = \"information_schema.tables\"\nwhere = \"false\"", "nothing can be kept back of"),
        ("[[grant]]\nto = \"everyone\"\non = \"system.*\"", "warning: grant[1].on: system needs no grant"),
        ("[[grant]]\nto = \"everyone\"\non = \"system.loads\"", "warning: grant[1].on: system.loads needs no grant"),
    ] {
        let report = report(&[("grants.toml", text)]);
        let said: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].contains(wanted), "{text}: {said:?}");
        assert_eq!(Problems::of(&report.problems).is_none(), wanted.starts_with("warning"), "{text}");
    }
    assert_eq!(problems(&[("grants.toml", "[[grant]]\nto = \"everyone\"\non = \"results.*\"")]), [""; 0]);
}

#[test]
fn a_weight_of_a_role_that_nobody_has_is_a_warning() {
    let line = "[[line]]\nnetworks = [\"10.0.0.0/8\"]\nrate = \"10Mbit/s\"\n[line.weights]\nadmin = 2\nslaes = 3";
    let said = problems(&[("lakegate.toml", line), ("users.toml", "[users.ann]\nroles = [\"sales\"]")]);
    let wanted = "lakegate.toml:6:1: warning: line[1].weights.slaes: there is no role `slaes`: nobody has this weight; did you mean `sales`?";
    assert!(said.iter().any(|said| said == wanted), "{said:?}");
}
