//! How a column is asked for, what arrives, and what it becomes.

use arrow::datatypes::{DataType, Field, TimeUnit};

use super::{
    ColumnOptions, ColumnProblem, ProblemKind, SourceColumn, SqlType, SubMicroseconds, Times, Timestamps, Variants,
};
use crate::source::mssql::statements::{quote, variant_text};

/// How one column of the server becomes columns of the lake.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnPlan {
    /// The fields it becomes, usually one; all may be null. A companion follows its column.
    pub fields: Vec<Field>,
    /// What the user should know: what is lost, or what can change unseen. Whole sentences.
    pub notes: Vec<String>,
    name: String,
    sql_type: SqlType,
    form: Form,
    cell: Cell,
    guard: Option<u64>,
    srid: bool,
}

/// The expression a column is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::mssql) enum Form {
    /// As it is.
    Plain,
    /// Cast to another type.
    Cast(String),
    /// A method of its CLR type, called without arguments.
    Method(&'static str),
    /// Text made of a `sql_variant`.
    Variant,
}

/// What arrives for a column, and how it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::mssql) enum Cell {
    /// `bit` as boolean.
    Bit,
    /// `tinyint` as 16 bits.
    TinyInt,
    /// `smallint`.
    SmallInt,
    /// `int`.
    Int,
    /// `bigint`.
    BigInt,
    /// An exact number.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// 32-bit float.
    Real,
    /// 64-bit float.
    Float,
    /// Text.
    Text,
    /// Bytes.
    Binary,
    /// A day.
    Date,
    /// `datetime`, `smalldatetime`, `datetime2`: microseconds.
    Moment {
        /// Whether it is marked as UTC.
        utc: bool,
        /// Whether a seventh digit is an error.
        exact: bool,
    },
    /// `datetime2` as text.
    MomentText,
    /// `datetimeoffset` as microseconds of UTC.
    Instant {
        /// Whether a seventh digit is an error.
        exact: bool,
        /// Whether the offset is kept beside it.
        companion: bool,
    },
    /// `datetimeoffset` as text.
    InstantText {
        /// Whether it is written in UTC instead of its own offset.
        utc: bool,
    },
    /// `time` as text.
    TimeText,
    /// `time` as microseconds.
    TimeMicroseconds {
        /// Whether a seventh digit is an error.
        exact: bool,
    },
    /// A GUID as text in lower case.
    Guid,
}

impl ColumnPlan {
    /// The plan of a column.
    ///
    /// # Errors
    /// When the column cannot be read as it is; the error says what to do.
    pub fn new(column: &SourceColumn, options: &ColumnOptions) -> Result<Self, ColumnProblem> {
        Self::build(column, options, false)
    }

    /// The plan of a column that is part of the key. Nothing of a key is lost: a seventh digit of a second is kept as
    /// text or is an error, and an instant that is kept as text is written in UTC, since the server compares it so.
    ///
    /// # Errors
    /// When the column cannot be read, or cannot be a key.
    pub fn for_key(column: &SourceColumn, options: &ColumnOptions) -> Result<Self, ColumnProblem> {
        let cannot =
            matches!(column.sql_type, SqlType::Real | SqlType::Float | SqlType::Variant | SqlType::Vector { .. });
        if cannot || column.sql_type.is_large() {
            return Err(problem(column, ProblemKind::NoKey));
        }
        Self::build(column, options, true)
    }

    /// The column's name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The column's type on the server.
    pub fn sql_type(&self) -> &SqlType {
        &self.sql_type
    }

    /// The expressions to select from the row set `alias`, in the order in which the decoder takes their values: the
    /// value; its length where it may be too large to fetch; the spatial reference where it is kept.
    pub fn select(&self, alias: &str) -> Vec<String> {
        let column = format!("{alias}.{}", quote(&self.name));
        let value = match &self.form {
            Form::Plain => column.clone(),
            Form::Cast(sql_type) => format!("CAST({column} AS {sql_type})"),
            Form::Method(method) => format!("{column}.{method}()"),
            Form::Variant => variant_text(&column),
        };
        let mut expressions = match self.guard {
            Some(limit) => vec![
                format!("CASE WHEN DATALENGTH({column}) > {limit} THEN NULL ELSE {value} END"),
                format!("DATALENGTH({column})"),
            ],
            None => vec![value],
        };
        if self.srid {
            expressions.push(format!("{column}.STSrid"));
        }
        expressions
    }

    /// How many values the decoder takes for it from a row.
    pub fn width(&self) -> usize {
        1 + usize::from(self.guard.is_some()) + usize::from(self.srid)
    }

    /// What arrives and how it is kept.
    pub(in crate::source::mssql) fn cell(&self) -> &Cell {
        &self.cell
    }

    /// The size in bytes above which a value is not sent, where there is one.
    pub(in crate::source::mssql) fn guard(&self) -> Option<u64> {
        self.guard
    }

    /// Whether the spatial reference arrives too.
    pub(in crate::source::mssql) fn has_srid(&self) -> bool {
        self.srid
    }

    fn build(column: &SourceColumn, options: &ColumnOptions, key: bool) -> Result<Self, ColumnProblem> {
        if let Some(kind) = refusal(column, options) {
            return Err(problem(column, kind));
        }
        let form = form(column);
        let cell = cell(&column.sql_type, options, key).ok_or_else(|| problem(column, ProblemKind::UnknownType))?;
        let spatial = matches!(column.sql_type, SqlType::Geography | SqlType::Geometry);
        let srid = spatial && options.companions;
        let mut fields = vec![Field::new(&column.name, arrow_type(&cell), true)];
        if matches!(cell, Cell::Instant { companion: true, .. }) {
            fields.push(Field::new(format!("{}__offset_min", column.name), DataType::Int16, true));
        }
        if srid {
            fields.push(Field::new(format!("{}__srid", column.name), DataType::Int32, true));
        }
        Ok(Self {
            fields,
            notes: notes(column, &cell, options),
            name: column.name.clone(),
            sql_type: column.sql_type.clone(),
            form,
            cell,
            guard: column.sql_type.is_large().then_some(options.max_cell_bytes),
            srid,
        })
    }
}

fn problem(column: &SourceColumn, kind: ProblemKind) -> ColumnProblem {
    ColumnProblem { column: column.name.clone(), sql_type: column.sql_type.clone(), kind }
}

/// Why a column is not read at all.
fn refusal(column: &SourceColumn, options: &ColumnOptions) -> Option<ProblemKind> {
    if column.encrypted {
        return Some(ProblemKind::Encrypted);
    }
    if column.column_set {
        return Some(ProblemKind::ColumnSet);
    }
    if column.masked {
        return Some(ProblemKind::Masked);
    }
    match &column.sql_type {
        SqlType::Variant if options.variants == Variants::Fail => Some(ProblemKind::Variant),
        SqlType::UserDefined { .. } => Some(ProblemKind::ClrType),
        SqlType::Other { .. } => Some(ProblemKind::UnknownType),
        _ => None,
    }
}

/// Where the driver would be wrong, the server converts: it reads `money` through a float, takes UTF-8 for code page
/// 1252, and knows neither all code pages nor the newest types.
fn form(column: &SourceColumn) -> Form {
    let cast = |sql_type: &str| Form::Cast(sql_type.to_owned());
    match &column.sql_type {
        SqlType::Money => cast("decimal(19,4)"),
        SqlType::SmallMoney => cast("decimal(10,4)"),
        SqlType::Char { .. } | SqlType::VarChar { .. } | SqlType::Text if driver_decodes(column) => Form::Plain,
        SqlType::Char { length } | SqlType::VarChar { length: Some(length) } if *length <= 4000 => {
            Form::Cast(format!("nvarchar({length})"))
        }
        SqlType::Char { .. }
        | SqlType::VarChar { .. }
        | SqlType::Text
        | SqlType::Xml
        | SqlType::Json
        | SqlType::Vector { .. } => cast("nvarchar(max)"),
        SqlType::Variant => Form::Variant,
        SqlType::HierarchyId => Form::Method("ToString"),
        // Unlike STAsBinary it keeps Z and M.
        SqlType::Geography | SqlType::Geometry => Form::Method("AsBinaryZM"),
        _ => Form::Plain,
    }
}

/// Whether the driver decodes the column's code page right. It looks the code page up by numbers that the catalogue
/// does not tell, so only the two families of names that are known to work are left to it.
fn driver_decodes(column: &SourceColumn) -> bool {
    let name = column.collation.as_deref().unwrap_or_default().to_ascii_lowercase();
    let known = name.starts_with("latin1_general_") || name.starts_with("sql_latin1_general_cp1_");
    known && column.code_page == Some(1252)
}

/// What arrives for a type; none for types that are refused before.
fn cell(sql_type: &SqlType, options: &ColumnOptions, key: bool) -> Option<Cell> {
    let sub = options.sub_microseconds;
    let exact = key || sub != SubMicroseconds::Truncate;
    let text = |scale: u8| sub == SubMicroseconds::Text && scale > 6;
    let utc = options.timestamps == Timestamps::Utc;
    Some(match sql_type {
        SqlType::Bit => Cell::Bit,
        SqlType::TinyInt => Cell::TinyInt,
        SqlType::SmallInt => Cell::SmallInt,
        SqlType::Int => Cell::Int,
        SqlType::BigInt => Cell::BigInt,
        SqlType::Decimal { precision, scale } => Cell::Decimal { precision: *precision, scale: *scale },
        SqlType::Money => Cell::Decimal { precision: 19, scale: 4 },
        SqlType::SmallMoney => Cell::Decimal { precision: 10, scale: 4 },
        SqlType::Real => Cell::Real,
        SqlType::Float => Cell::Float,
        SqlType::Char { .. }
        | SqlType::VarChar { .. }
        | SqlType::Text
        | SqlType::NChar { .. }
        | SqlType::NVarChar { .. }
        | SqlType::NText
        | SqlType::Xml
        | SqlType::Json
        | SqlType::Vector { .. }
        | SqlType::Variant
        | SqlType::HierarchyId => Cell::Text,
        SqlType::Binary { .. }
        | SqlType::VarBinary { .. }
        | SqlType::Image
        | SqlType::RowVersion
        | SqlType::Geography
        | SqlType::Geometry => Cell::Binary,
        SqlType::Date => Cell::Date,
        SqlType::Time { scale } if options.times == Times::Text || text(*scale) => Cell::TimeText,
        SqlType::Time { .. } => Cell::TimeMicroseconds { exact },
        SqlType::DateTime2 { scale } if text(*scale) => Cell::MomentText,
        SqlType::DateTime | SqlType::SmallDateTime | SqlType::DateTime2 { .. } => Cell::Moment { utc, exact },
        SqlType::DateTimeOffset { scale } if text(*scale) => Cell::InstantText { utc: key },
        SqlType::DateTimeOffset { .. } => Cell::Instant { exact, companion: options.companions },
        SqlType::UniqueIdentifier => Cell::Guid,
        SqlType::UserDefined { .. } | SqlType::Other { .. } => return None,
    })
}

fn arrow_type(cell: &Cell) -> DataType {
    let utc = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    match cell {
        Cell::Bit => DataType::Boolean,
        Cell::TinyInt | Cell::SmallInt => DataType::Int16,
        Cell::Int => DataType::Int32,
        Cell::BigInt | Cell::TimeMicroseconds { .. } => DataType::Int64,
        // A scale is at most 38, so it always fits.
        Cell::Decimal { precision, scale } => DataType::Decimal128(*precision, i8::try_from(*scale).unwrap_or(i8::MAX)),
        Cell::Real => DataType::Float32,
        Cell::Float => DataType::Float64,
        Cell::Binary => DataType::Binary,
        Cell::Date => DataType::Date32,
        Cell::Moment { utc: false, .. } => DataType::Timestamp(TimeUnit::Microsecond, None),
        Cell::Moment { utc: true, .. } | Cell::Instant { .. } => utc(),
        Cell::Text | Cell::MomentText | Cell::InstantText { .. } | Cell::TimeText | Cell::Guid => DataType::Utf8,
    }
}

/// What the user should know of a column.
fn notes(column: &SourceColumn, cell: &Cell, options: &ColumnOptions) -> Vec<String> {
    let name = &column.name;
    let mut notes = Vec::new();
    if column.computed.is_some_and(|computed| !computed.persisted) {
        notes.push(format!(
            "column `{name}` is computed when it is read: it can change without a change of its row, and is then out of \
             step until the row changes"
        ));
    }
    let cut = |scale: u8| scale > 6 && options.sub_microseconds == SubMicroseconds::Truncate;
    let timed = match (&column.sql_type, cell) {
        (SqlType::DateTime2 { scale } | SqlType::DateTimeOffset { scale }, _) => cut(*scale),
        (SqlType::Time { scale }, Cell::TimeMicroseconds { exact: false }) => cut(*scale),
        _ => false,
    };
    if timed && !matches!(cell, Cell::Moment { exact: true, .. } | Cell::Instant { exact: true, .. }) {
        notes.push(format!(
            "column `{name}` ({}) loses the seventh digit of a second; write `sub_microseconds = \"text\"` to keep it",
            column.sql_type
        ));
    }
    if matches!(cell, Cell::Instant { companion: false, .. }) {
        notes.push(format!(
            "column `{name}` keeps the instant but not the offset it was written with; write `offsets = true` to \
             keep that too"
        ));
    }
    if matches!(column.sql_type, SqlType::Geography | SqlType::Geometry) && !options.companions {
        notes.push(format!(
            "column `{name}` is kept as well-known binary without its spatial reference; write `offsets = true` to \
             keep that too"
        ));
    }
    if column.sql_type == SqlType::Xml {
        notes.push(format!("column `{name}` is kept as the server writes XML, not byte for byte as it was stored"));
    }
    notes
}

#[cfg(test)]
mod tests;
