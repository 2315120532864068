//! What a server tells a client of a result before any row is fetched, and what the client tells of one that it has
//! (`described.rs` is the server's side).

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::{FlightInfo, IpcMessage};
use bytes::Bytes;
use serde_json::Value;

/// Longest text that is shown to a server again.
const LONGEST_BASIS: usize = 4096;

/// What a client has of an earlier answer to the same question.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// The server's name for the result; it need not be sent if it is the same.
    pub(crate) identity: Option<String>,
    /// What it was made of, to be sent new rows alone.
    pub(crate) basis: Option<String>,
}

/// What is known of a result that was not fetched yet.
#[derive(Debug)]
pub(crate) struct Announcement {
    /// Columns with plain types, as rows are handed out.
    pub(crate) schema: SchemaRef,
    /// The same for two results exactly when they have the same rows; none where the server does not say.
    pub(crate) identity: Option<String>,
    /// What to show the server later, to be sent new rows alone.
    pub(crate) basis: Option<String>,
    /// Whether it is the result that the client has already; then there is nothing to fetch.
    pub(crate) not_modified: bool,
    /// The result the client has, to which what is sent is added; none where all is sent.
    pub(crate) appended_to: Option<String>,
    /// All of the description.
    pub(crate) info: FlightInfo,
}

impl Announcement {
    /// Reads what a server says of a result. What is missing or not understood is not known; a newer server may say more.
    ///
    /// # Errors
    /// When there are no columns.
    pub(crate) fn read(info: FlightInfo) -> Result<Self, ArrowError> {
        let told = serde_json::from_slice::<Value>(&info.app_metadata).ok();
        let told = told.filter(|told| told["lakegate"] == 1).unwrap_or_default();
        let text = |name: &str, is_sound: fn(&str) -> bool| {
            told[name].as_str().filter(|text| is_sound(text)).map(str::to_owned)
        };
        Ok(Self {
            schema: plain_schema(&info.schema)?,
            identity: text("identity", is_identity),
            basis: text("basis", is_basis),
            not_modified: told["not_modified"] == true,
            appended_to: text("appended_to", is_identity),
            info,
        })
    }

    /// Whether all rows of the result come from the server.
    pub(crate) fn is_whole(&self) -> bool {
        !self.not_modified && self.appended_to.is_none()
    }
}

/// Whether a text has the form of a result's name: it names a file, too.
pub(crate) fn is_identity(text: &str) -> bool {
    (16..=64).contains(&text.len()) && text.bytes().all(|letter| matches!(letter, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text can be shown to a server again, in a header.
pub(crate) fn is_basis(text: &str) -> bool {
    let is_sound = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'_' | b'-');
    (1..=LONGEST_BASIS).contains(&text.len()) && text.bytes().all(is_sound)
}

/// Columns with the values' types in place of dictionaries, which only save bytes on the way; from the message that describes them
/// as they travel.
///
/// # Errors
/// When it describes none.
pub(crate) fn plain_schema(wire_schema: &Bytes) -> Result<SchemaRef, ArrowError> {
    let schema = Schema::try_from(IpcMessage(wire_schema.clone()))?;
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Dictionary(_, values) => {
            let plain = Field::new(field.name(), values.as_ref().clone(), field.is_nullable());
            Arc::new(plain.with_metadata(field.metadata().clone()))
        }
        _ => Arc::clone(field),
    });
    let fields = fields.collect::<Vec<_>>();
    Ok(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
}

/// Rows with plain types.
///
/// # Errors
/// When they are others than was said.
pub(crate) fn plain_rows(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| match column.data_type() {
        DataType::Dictionary(..) => cast(column, field.data_type()),
        _ => Ok(Arc::clone(column)),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_, _>>()?, &options)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int64Array, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn info(metadata: &str) -> FlightInfo {
        let words = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let fields = vec![Field::new("word", words, true), Field::new("n", DataType::Int64, true)];
        FlightInfo::new().try_with_schema(&Schema::new(fields)).unwrap().with_app_metadata(metadata.to_owned())
    }

    #[test]
    fn what_a_server_says_is_read_and_what_it_should_not_say_is_not_known() {
        let identity = "ab".repeat(32);
        let told =
            format!(r#"{{"lakegate":1,"identity":"{identity}","basis":"a-B_1","not_modified":true,"more":[1]}}"#);
        let read = Announcement::read(info(&told)).unwrap();
        assert_eq!((read.identity.as_deref(), read.basis.as_deref()), (Some(identity.as_str()), Some("a-B_1")));
        assert!(read.not_modified && !read.is_whole() && read.appended_to.is_none());
        for other in [
            "",
            "no JSON",
            "[1]",
            "7",
            r#"{"lakegate":2,"identity":"abababababababab"}"#,
            r#"{"lakegate":1,"identity":7,"basis":7,"not_modified":1}"#,
            r#"{"lakegate":1,"identity":"../../abababababab","basis":"a b"}"#,
            r#"{"lakegate":1,"identity":"ABABABABABABABAB","appended_to":"x"}"#,
        ] {
            let read = Announcement::read(info(other)).unwrap();
            assert!(read.identity.is_none() && read.basis.is_none() && read.is_whole(), "{other}");
        }
    }

    #[test]
    fn dictionaries_are_unpacked() {
        let schema = plain_schema(&info("").schema).unwrap();
        assert_eq!(schema.field(0), &Field::new("word", DataType::Utf8, true));
        let words: DictionaryArray<Int32Type> = [Some("a"), None, Some("a")].into_iter().collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(words), Arc::new(Int64Array::from(vec![1, 2, 3]))];
        let fields =
            vec![Field::new("word", columns[0].data_type().clone(), true), Field::new("n", DataType::Int64, true)];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let plain = plain_rows(&batch, &schema).unwrap();
        assert_eq!(plain.column(0).as_string::<i32>(), &StringArray::from(vec![Some("a"), None, Some("a")]));
        assert_eq!((plain.schema(), plain.num_rows()), (schema, 3));
    }
}
