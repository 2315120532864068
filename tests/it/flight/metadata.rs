//! What there is: the specification's schemas to the letter, and the right rows.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, UInt32Type};
use arrow::ipc::convert::try_schema_from_ipc_buffer;
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo, SqlInfo,
};
use arrow_flight::{Action, Empty, FlightInfo};
use futures::TryStreamExt;

use super::server::{TestServer, read, text};

fn field(name: &str, data_type: DataType, nullable: bool) -> Field {
    Field::new(name, data_type, nullable)
}

/// Reads an answer and holds announced, told and sent schema to the specification's.
async fn answer(server: &TestServer, info: FlightInfo, expected: &[Field]) -> RecordBatch {
    assert_eq!(info.clone().try_decode_schema().unwrap(), Schema::new(expected.to_vec()));
    let mut plain = server.plain_client().await;
    let told = plain.get_schema(info.flight_descriptor.clone().unwrap()).await.unwrap().into_inner();
    assert_eq!(told.schema, info.schema);
    let batches = read(&mut server.client().await, info).await;
    let schema = std::sync::Arc::new(Schema::new(expected.to_vec()));
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

#[tokio::test]
async fn there_is_one_catalog() {
    let server = TestServer::start().await;
    let info = server.client().await.get_catalogs().await.unwrap();
    let batch = answer(&server, info, &[field("catalog_name", DataType::Utf8, false)]).await;
    assert_eq!(text(&[batch]), ["lakegate"]);
}

#[tokio::test]
async fn schemas_are_listed_with_and_without_filters() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let expected = [field("catalog_name", DataType::Utf8, true), field("db_schema_name", DataType::Utf8, false)];
    for (catalog, pattern, names) in [
        (None, None, &["big", "shapes", "slow", "system", "weather"][..]),
        (Some("lakegate"), Some("s%"), &["shapes", "slow", "system"]),
        (None, Some("weath_"), &[]),
        (Some(""), None, &[]),
        (Some("other"), None, &[]),
    ] {
        let request = CommandGetDbSchemas {
            catalog: catalog.map(str::to_owned),
            db_schema_filter_pattern: pattern.map(str::to_owned),
        };
        let info = client.get_db_schemas(request).await.unwrap();
        let rows = text(&[answer(&server, info, &expected).await]);
        assert_eq!(rows, names.iter().map(|name| format!("lakegate {name}")).collect::<Vec<_>>());
    }
}

const TABLES: [&str; 4] = ["catalog_name", "db_schema_name", "table_name", "table_type"];

fn tables_schema() -> Vec<Field> {
    TABLES.iter().enumerate().map(|(at, name)| field(name, DataType::Utf8, at < 2)).collect()
}

#[tokio::test]
async fn tables_are_listed_by_schema_name_and_kind() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let all = CommandGetTables::default();
    let of = |schema: &str| CommandGetTables { db_schema_filter_pattern: Some(schema.to_owned()), ..all.clone() };
    let named = |name: &str| CommandGetTables { table_name_filter_pattern: Some(name.to_owned()), ..all.clone() };
    let kinds = |kinds: &[&str]| CommandGetTables {
        table_types: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        ..all.clone()
    };
    for (request, count, first) in [
        (all.clone(), 7, "lakegate big numbers TABLE"),
        (CommandGetTables { catalog: Some("lakegate".to_owned()), ..all.clone() }, 7, "lakegate big numbers TABLE"),
        (CommandGetTables { catalog: Some(String::new()), ..all.clone() }, 0, ""),
        (of("weather"), 2, "lakegate weather hourly TABLE"),
        (named("%s"), 4, "lakegate big numbers TABLE"),
        (named("select * from weather.hourly"), 0, ""),
        (kinds(&["BASE TABLE", "table"]), 6, "lakegate big numbers TABLE"),
        (kinds(&["TABLE"]), 6, "lakegate big numbers TABLE"),
        (kinds(&["SYSTEM TABLE"]), 1, "lakegate system loads SYSTEM TABLE"),
        (kinds(&["VIEW"]), 0, ""),
    ] {
        let info = client.get_tables(request.clone()).await.unwrap();
        let rows = text(&[answer(&server, info, &tables_schema()).await]);
        assert_eq!((rows.len(), rows.first().map_or("", String::as_str)), (count, first), "{request:?}");
    }
}

#[tokio::test]
async fn tables_come_with_the_columns_a_query_sends() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let request = CommandGetTables {
        table_name_filter_pattern: Some("hourly".to_owned()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let info = client.get_tables(request).await.unwrap();
    let mut expected = tables_schema();
    expected.push(field("table_schema", DataType::Binary, false));
    let batch = answer(&server, info, &expected).await;
    let columns = try_schema_from_ipc_buffer(batch.column(4).as_binary::<i32>().value(0)).unwrap();
    let plain = columns.fields().iter().map(|field| field.as_ref().clone().with_metadata(Default::default()));
    let info = client.execute("select * from weather.hourly".to_owned(), None).await.unwrap();
    assert_eq!(Schema::new(plain.collect::<Vec<_>>()), info.try_decode_schema().unwrap());
    let metadata = columns.field(1).metadata();
    assert_eq!(metadata["ARROW:FLIGHT:SQL:TYPE_NAME"], "bigint");
    assert_eq!(metadata["ARROW:FLIGHT:SQL:TABLE_NAME"], "hourly");
}

#[tokio::test]
async fn kinds_of_table_are_listed() {
    let server = TestServer::start().await;
    let info = server.client().await.get_table_types().await.unwrap();
    let batch = answer(&server, info, &[field("table_type", DataType::Utf8, false)]).await;
    assert_eq!(text(&[batch]), ["SYSTEM TABLE", "TABLE"]);
}

#[tokio::test]
async fn keys_come_from_the_definitions() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let expected = [
        field("catalog_name", DataType::Utf8, true),
        field("db_schema_name", DataType::Utf8, true),
        field("table_name", DataType::Utf8, false),
        field("column_name", DataType::Utf8, false),
        field("key_name", DataType::Utf8, true),
        field("key_sequence", DataType::Int32, false),
    ];
    let key = |schema: Option<&str>, table: &str| CommandGetPrimaryKeys {
        catalog: None,
        db_schema: schema.map(str::to_owned),
        table: table.to_owned(),
    };
    let info = client.get_primary_keys(key(None, "hourly")).await.unwrap();
    let rows = text(&[answer(&server, info, &expected).await]);
    assert_eq!(rows, ["lakegate weather hourly station  1", "lakegate weather hourly hour  2"]);
    let info = client.get_primary_keys(key(Some("big"), "hourly")).await.unwrap();
    assert!(text(&[answer(&server, info, &expected).await]).is_empty());
}

#[tokio::test]
async fn there_are_no_foreign_keys() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let name = |name: &str, nullable| field(name, DataType::Utf8, nullable);
    let expected = [
        name("pk_catalog_name", true),
        name("pk_db_schema_name", true),
        name("pk_table_name", false),
        name("pk_column_name", false),
        name("fk_catalog_name", true),
        name("fk_db_schema_name", true),
        name("fk_table_name", false),
        name("fk_column_name", false),
        field("key_sequence", DataType::Int32, false),
        name("fk_key_name", true),
        name("pk_key_name", true),
        field("update_rule", DataType::UInt8, false),
        field("delete_rule", DataType::UInt8, false),
    ];
    let exported = client.get_exported_keys(CommandGetExportedKeys { table: "hourly".into(), ..Default::default() });
    let infos = [
        exported.await.unwrap(),
        client
            .get_imported_keys(CommandGetImportedKeys { table: "hourly".into(), ..Default::default() })
            .await
            .unwrap(),
        client.get_cross_reference(CommandGetCrossReference::default()).await.unwrap(),
    ];
    for info in infos {
        assert_eq!(answer(&server, info, &expected).await.num_rows(), 0);
    }
}

#[tokio::test]
async fn every_code_of_sql_info_is_answered_in_the_arm_drivers_cast_from() {
    let server = TestServer::start().await;
    let info = server.client().await.get_sql_info(vec![]).await.unwrap();
    let schema = info.clone().try_decode_schema().unwrap();
    assert_eq!(schema.field(0), &field("info_name", DataType::UInt32, false));
    assert!(!schema.field(1).is_nullable() && schema.field(1).name() == "value");
    let DataType::Union(arms, arrow::datatypes::UnionMode::Dense) = schema.field(1).data_type() else {
        panic!("not a dense union")
    };
    let names: Vec<_> = arms.iter().map(|(_, arm)| arm.name().as_str()).collect();
    assert_eq!(
        names,
        ["string_value", "bool_value", "bigint_value", "int32_bitmask", "string_list", "int32_to_int32_list_map"]
    );
    let batch = read(&mut server.client().await, info).await.remove(0);
    let codes = batch.column(0).as_primitive::<UInt32Type>();
    let values = batch.column(1).as_union();
    let arms: BTreeMap<u32, i8> = (0..batch.num_rows()).map(|row| (codes.value(row), values.type_id(row))).collect();
    let all = (0..=11).chain(100..=101).chain(500..=576);
    assert_eq!(arms.keys().copied().collect::<Vec<_>>(), all.collect::<Vec<u32>>());
    let longs = (541..=562).filter(|code| *code != 556);
    assert!(longs.into_iter().all(|code| arms[&code] == 2), "JDBC casts these to Long");
    assert!([0, 1, 2, 504, 529].iter().all(|code| arms[code] == 0));
    assert!([3, 4, 5, 9, 10, 518, 556].iter().all(|code| arms[code] == 1));
    assert!([8, 100, 503, 525, 528, 564].iter().all(|code| arms[code] == 3));
    assert!((508..=512).all(|code| arms[&code] == 4) && arms[&517] == 5);
}

#[tokio::test]
async fn there_are_no_transactions_and_drivers_learn_it_in_their_first_call() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerTransaction]).await.unwrap();
    let batch = read(&mut client, info).await.remove(0);
    let value = batch.column(1).as_union().value(0);
    assert_eq!((batch.num_rows(), value.as_primitive::<Int32Type>().value(0)), (1, 0));
    let info = client.get_sql_info(vec![SqlInfo::SqlMaxTableNameLength]).await.unwrap();
    let batch = read(&mut client, info).await.remove(0);
    assert_eq!(batch.column(1).as_union().value(0).as_primitive::<Int64Type>().value(0), 128);
}

#[tokio::test]
async fn types_are_listed_by_code() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    let schema = info.clone().try_decode_schema().unwrap();
    let list = DataType::List(std::sync::Arc::new(Field::new("item", DataType::Utf8, false)));
    let expected = [
        field("type_name", DataType::Utf8, false),
        field("data_type", DataType::Int32, false),
        field("column_size", DataType::Int32, true),
        field("literal_prefix", DataType::Utf8, true),
        field("literal_suffix", DataType::Utf8, true),
        field("create_params", list, true),
        field("nullable", DataType::Int32, false),
        field("case_sensitive", DataType::Boolean, false),
        field("searchable", DataType::Int32, false),
        field("unsigned_attribute", DataType::Boolean, true),
        field("fixed_prec_scale", DataType::Boolean, false),
        field("auto_increment", DataType::Boolean, true),
        field("local_type_name", DataType::Utf8, true),
        field("minimum_scale", DataType::Int32, true),
        field("maximum_scale", DataType::Int32, true),
        field("sql_data_type", DataType::Int32, false),
        field("datetime_subcode", DataType::Int32, true),
        field("num_prec_radix", DataType::Int32, true),
        field("interval_precision", DataType::Int32, true),
    ];
    assert_eq!(schema, Schema::new(expected.to_vec()));
    let batch = answer(&server, info, &expected).await;
    let codes: Vec<i32> = batch.column(1).as_primitive::<Int32Type>().values().to_vec();
    assert!(codes.is_sorted() && codes.len() == 15, "{codes:?}");
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: Some(12) }).await.unwrap();
    let batch = answer(&server, info, &expected).await;
    assert_eq!(batch.column(0).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("string")]);
}

#[tokio::test]
async fn actions_are_listed_and_sessions_are_told_the_catalog() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let actions: Vec<_> = client.list_actions(Empty {}).await.unwrap().into_inner().try_collect().await.unwrap();
    assert!(actions.iter().any(|action| action.r#type == "CreatePreparedStatement"));
    let mut call = async |name: &str, body: &'static [u8]| {
        let answer = client.do_action(Action::new(name, body)).await?.into_inner();
        let results: Vec<_> = answer.try_collect().await?;
        Ok::<_, tonic::Status>(results[0].body.to_vec())
    };
    assert_eq!(call("CloseSession", b"").await.unwrap(), [0x08, 0x01]);
    assert_eq!(call("GetSessionOptions", b"").await.unwrap(), b"\n\x15\n\x07catalog\x12\n\n\x08lakegate");
    let set = call("SetSessionOptions", b"\n\x15\n\x07catalog\x12\n\n\x08lakegate").await.unwrap();
    assert!(set.is_empty(), "no errors");
    assert_eq!(call("Unknown", b"").await.unwrap_err().code(), tonic::Code::Unimplemented);
}
