//! The formats rows are written in.

use std::io::{self, IsTerminal};

use arrow::array::RecordBatch;
use arrow::csv::{Writer as CsvWriter, WriterBuilder as CsvBuilder};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow_json::writer::{JsonArray, LineDelimited};
use arrow_json::{Writer as JsonWriter, WriterBuilder as JsonBuilder};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::cli::arguments::Format;
use crate::cli::output::columns::TableRows;
use crate::cli::output::nested;
use crate::cli::output::target::Target;

/// Rows of a Parquet row group: what is held in memory at most.
const ROW_GROUP_ROWS: usize = 256 * 1024;

/// Rows on their way.
pub(super) enum Rows {
    Table(TableRows, Target),
    Csv(Box<CsvWriter<Target>>),
    Json(Box<JsonWriter<Target, JsonArray>>),
    Ndjson(Box<JsonWriter<Target, LineDelimited>>),
    ArrowStream(Box<StreamWriter<Target>>),
    ArrowFile(Box<FileWriter<Target>>),
    Parquet(Box<ArrowWriter<Target>>),
}

impl Rows {
    pub(super) fn begin(target: Target, format: Format, schema: &SchemaRef) -> io::Result<Self> {
        Ok(match format {
            Format::Table => {
                let cut = !target.is_file() && io::stdout().is_terminal();
                Self::Table(TableRows::new(schema, cut), target)
            }
            Format::Csv => {
                let mut writer = CsvBuilder::new().with_header(true).build(target);
                // An empty batch writes the header, so that a result without rows has one.
                writer.write(&RecordBatch::new_empty(nested::flat_schema(schema))).map_err(arrow)?;
                Self::Csv(Box::new(writer))
            }
            Format::Json => Self::Json(Box::new(JsonBuilder::new().with_explicit_nulls(true).build(target))),
            Format::Ndjson => Self::Ndjson(Box::new(JsonBuilder::new().with_explicit_nulls(true).build(target))),
            Format::Arrow if target.is_file() => {
                Self::ArrowFile(Box::new(FileWriter::try_new(target, schema).map_err(arrow)?))
            }
            Format::Arrow => Self::ArrowStream(Box::new(StreamWriter::try_new(target, schema).map_err(arrow)?)),
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
                    .build();
                let writer = ArrowWriter::try_new(target, schema.clone(), Some(properties)).map_err(parquet)?;
                Self::Parquet(Box::new(writer))
            }
        })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        match self {
            Self::Table(rows, target) => rows.write(target, batch),
            Self::Csv(writer) => nested::flatten(batch).and_then(|flat| writer.write(&flat)).map_err(arrow),
            Self::Json(writer) => writer.write(batch).map_err(arrow),
            Self::Ndjson(writer) => writer.write(batch).map_err(arrow),
            Self::ArrowStream(writer) => writer.write(batch).map_err(arrow),
            Self::ArrowFile(writer) => writer.write(batch).map_err(arrow),
            Self::Parquet(writer) => writer.write(batch).map_err(parquet),
        }
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Table(mut rows, mut target) => {
                rows.finish(&mut target)?;
                target.finish()
            }
            Self::Csv(writer) => writer.into_inner().finish(),
            Self::Json(mut writer) => {
                writer.finish().map_err(arrow)?;
                let mut target = writer.into_inner();
                io::Write::write_all(&mut target, b"\n")?;
                target.finish()
            }
            Self::Ndjson(mut writer) => {
                writer.finish().map_err(arrow)?;
                writer.into_inner().finish()
            }
            Self::ArrowStream(mut writer) => {
                writer.finish().map_err(arrow)?;
                writer.into_inner().map_err(arrow)?.finish()
            }
            Self::ArrowFile(mut writer) => {
                writer.finish().map_err(arrow)?;
                writer.into_inner().map_err(arrow)?.finish()
            }
            Self::Parquet(writer) => writer.into_inner().map_err(parquet)?.finish(),
        }
    }
}

/// The system's own error where there is one: a reader that went away is told apart by it.
fn arrow(error: ArrowError) -> io::Error {
    match error {
        ArrowError::IoError(_, error) => error,
        other => io::Error::other(other),
    }
}

fn parquet(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}
