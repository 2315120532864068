//! A column of SQL Server as its catalogue describes it, and what is made of it.

mod options;
mod plan;
mod problem;
mod sql_type;

pub use options::{ColumnOptions, SubMicroseconds, Times, Timestamps, Variants};
pub(super) use plan::Cell;
pub use plan::ColumnPlan;
pub use problem::{ColumnProblem, ProblemKind};
pub use sql_type::SqlType;

/// What `sys.columns` and its neighbours tell of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceColumn {
    /// The name, as written there.
    pub name: String,
    /// The number the server gave it: stays when the column is renamed.
    pub column_id: i32,
    /// The type; an alias type is already replaced by its base.
    pub sql_type: SqlType,
    /// Whether NULL may stand in it.
    pub nullable: bool,
    /// The collation, for text alone.
    pub collation: Option<String>,
    /// The collation's code page (`COLLATIONPROPERTY(…, 'CodePage')`), for text alone: 65001 is UTF-8.
    pub code_page: Option<i32>,
    /// Whether the server numbers it.
    pub identity: bool,
    /// Whether the server computes it.
    pub computed: Option<Computed>,
    /// Whether it is stored sparsely.
    pub sparse: bool,
    /// Whether it is the XML sum of all sparse columns.
    pub column_set: bool,
    /// Whether this login would be shown masked values: the column is masked and the login lacks `UNMASK`.
    pub masked: bool,
    /// Whether it is Always Encrypted.
    pub encrypted: bool,
    /// Whether the server keeps a period of validity in it.
    pub generated: Generated,
    /// Whether `SELECT *` leaves it out.
    pub hidden: bool,
}

impl SourceColumn {
    /// A column of a name and a type with nothing special about it; the rest is set on the result.
    pub fn plain(name: impl Into<String>, sql_type: SqlType) -> Self {
        Self {
            name: name.into(),
            column_id: 0,
            sql_type,
            nullable: true,
            collation: None,
            code_page: None,
            identity: false,
            computed: None,
            sparse: false,
            column_set: false,
            masked: false,
            encrypted: false,
            generated: Generated::No,
            hidden: false,
        }
    }
}

/// A column that the server computes from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Computed {
    /// Whether the result is stored. If not, it can change without a change of the row.
    pub persisted: bool,
}

/// Whether a column is one end of a temporal table's period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generated {
    /// It is not.
    #[default]
    No,
    /// Since when the row is as it is.
    RowStart,
    /// Until when the row was as it is.
    RowEnd,
    /// Something newer than this program (ledger columns).
    Other,
}

impl Generated {
    /// From `sys.columns.generated_always_type`.
    pub fn from_catalogue(generated_always_type: u8) -> Self {
        match generated_always_type {
            0 => Self::No,
            1 => Self::RowStart,
            2 => Self::RowEnd,
            _ => Self::Other,
        }
    }
}
