//! T-SQL as read: what the parser makes and the binder takes.

use crate::value::SqlType;

/// A dotted name; the last part is the object's or the column's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) Vec<String>);

impl Name {
    pub(crate) fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// The part before the last, the schema of an object.
    pub(crate) fn schema(&self) -> Option<&str> {
        self.0.len().checked_sub(2).and_then(|at| self.0.get(at)).map(String::as_str).filter(|part| !part.is_empty())
    }

    pub(crate) fn text(&self) -> String {
        self.0.join(".")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    BitAnd,
    BitOr,
    BitXor,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expression {
    Null,
    Default,
    Text {
        value: String,
        national: bool,
    },
    Number(String),
    Money(String),
    Binary(Vec<u8>),
    Column(Name),
    Variable(String),
    Not(Box<Expression>),
    Negate(Box<Expression>),
    BitNot(Box<Expression>),
    Operation {
        operator: Operator,
        left: Box<Expression>,
        right: Box<Expression>,
    },
    Between {
        value: Box<Expression>,
        low: Box<Expression>,
        high: Box<Expression>,
        negated: bool,
    },
    InList {
        value: Box<Expression>,
        list: Vec<Expression>,
        negated: bool,
    },
    InQuery {
        value: Box<Expression>,
        query: Box<Query>,
        negated: bool,
    },
    Like {
        value: Box<Expression>,
        pattern: Box<Expression>,
        escape: Option<Box<Expression>>,
        negated: bool,
    },
    IsNull {
        value: Box<Expression>,
        negated: bool,
    },
    Exists(Box<Query>),
    Scalar(Box<Query>),
    Case {
        operand: Option<Box<Expression>>,
        branches: Vec<(Expression, Expression)>,
        otherwise: Option<Box<Expression>>,
    },
    Cast {
        value: Box<Expression>,
        to: SqlType,
        style: Option<Box<Expression>>,
        tolerant: bool,
    },
    Call(Box<Call>),
    Collate {
        value: Box<Expression>,
        collation: String,
    },
    Method {
        value: Box<Expression>,
        name: String,
    },
}

/// A function call; `name` is in capitals, without a schema.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) arguments: Vec<Expression>,
    pub(crate) distinct: bool,
    pub(crate) star: bool,
    pub(crate) over: Option<Window>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Window {
    pub(crate) partition: Vec<Expression>,
    pub(crate) order: Vec<Order>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub(crate) expression: Expression,
    pub(crate) descending: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    pub(crate) with: Vec<CommonTable>,
    pub(crate) body: Body,
    pub(crate) order: Vec<Order>,
    pub(crate) offset: Option<Expression>,
    pub(crate) fetch: Option<Expression>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CommonTable {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    pub(crate) query: Query,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetOperator {
    Union,
    UnionAll,
    Except,
    Intersect,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    Select(Box<Select>),
    Set { operator: SetOperator, left: Box<Body>, right: Box<Body> },
    Nested(Box<Query>),
    Values(Vec<Vec<Expression>>),
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Select {
    pub(crate) distinct: bool,
    pub(crate) top: Option<Expression>,
    pub(crate) items: Vec<Item>,
    pub(crate) from: Option<Source>,
    pub(crate) filter: Option<Expression>,
    pub(crate) group: Vec<Expression>,
    pub(crate) having: Option<Expression>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Star(Option<Name>),
    Value { expression: Expression, alias: Option<String> },
    Assign { variable: String, expression: Expression },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    Cross,
    CrossApply,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Named { name: Name, alias: Option<String> },
    Derived { query: Box<Query>, alias: String, columns: Vec<String> },
    Changes { table: Name, since: Option<Expression>, alias: String },
    Function { name: Name, arguments: Vec<Expression>, alias: Option<String> },
    Join { kind: JoinKind, left: Box<Source>, right: Box<Source>, on: Option<Expression> },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum InsertRows {
    Values(Vec<Vec<Expression>>),
    Query(Box<Query>),
    Defaults,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Insert {
    pub(crate) context: Option<Expression>,
    pub(crate) table: Name,
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) rows: InsertRows,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Update {
    pub(crate) context: Option<Expression>,
    pub(crate) top: Option<Expression>,
    pub(crate) table: Name,
    pub(crate) assignments: Vec<(String, Expression)>,
    pub(crate) from: Option<Source>,
    pub(crate) filter: Option<Expression>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delete {
    pub(crate) context: Option<Expression>,
    pub(crate) top: Option<Expression>,
    pub(crate) table: Name,
    pub(crate) from: Option<Source>,
    pub(crate) filter: Option<Expression>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ColumnDefinition {
    pub(crate) name: String,
    pub(crate) sql_type: Option<SqlType>,
    /// Name of a user type, when the type is none of SQL Server's own.
    pub(crate) user_type: Option<Name>,
    pub(crate) nullable: Option<bool>,
    pub(crate) collation: Option<String>,
    pub(crate) default: Option<Sourced>,
    pub(crate) default_name: Option<String>,
    pub(crate) with_values: bool,
    pub(crate) identity: Option<(i64, i64)>,
    pub(crate) computed: Option<Sourced>,
    pub(crate) persisted: bool,
    pub(crate) primary: Option<KeyDefinition>,
    pub(crate) unique: Option<KeyDefinition>,
    pub(crate) masked: bool,
    pub(crate) sparse: bool,
    pub(crate) column_set: bool,
    pub(crate) hidden: bool,
    pub(crate) encrypted: bool,
    /// 1 row start, 2 row end, as `sys.columns.generated_always_type`.
    pub(crate) generated: u8,
}

/// An expression with the text it was read from, for catalogue views.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sourced {
    pub(crate) expression: Expression,
    pub(crate) text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KeyDefinition {
    pub(crate) name: Option<String>,
    /// Column and whether it descends; empty on a column's own constraint.
    pub(crate) columns: Vec<(String, bool)>,
    pub(crate) included: Vec<String>,
    pub(crate) clustered: Option<bool>,
    pub(crate) unique: bool,
    pub(crate) filtered: bool,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct CreateTable {
    pub(crate) name: Option<Name>,
    pub(crate) columns: Vec<ColumnDefinition>,
    pub(crate) primary: Option<KeyDefinition>,
    pub(crate) unique: Vec<KeyDefinition>,
    pub(crate) system_versioned: bool,
    pub(crate) memory_optimized: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AlterTable {
    Add { columns: Vec<ColumnDefinition>, keys: Vec<(bool, KeyDefinition)>, with_values: bool },
    AddDefault { name: Option<String>, column: String, value: Sourced, with_values: bool },
    DropColumns { names: Vec<String>, if_exists: bool },
    DropConstraints(Vec<String>),
    AlterColumn(Box<ColumnDefinition>),
    Mask { column: String, on: bool },
    EnableTracking { columns_updated: bool },
    DisableTracking,
    Versioning(bool),
    Nothing,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AlterDatabase {
    TrackingOn { retention: Option<(i64, u8)>, auto_cleanup: Option<bool> },
    TrackingOff,
    Snapshot(bool),
    ReadCommittedSnapshot(bool),
    ReadOnly(bool),
    Compatibility(i64),
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Securable {
    Database,
    Server,
    Schema(String),
    Object(Name),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    Give,
    Deny,
    Revoke,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SetOption {
    Isolation(super::session::Isolation),
    LockTimeout(i64),
    XactAbort(bool),
    NoCount(bool),
    IdentityInsert(Name, bool),
    FormatOnly(bool),
    Other,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Query(Query),
    Insert(Insert),
    Update(Update),
    Delete(Delete),
    Declare(Vec<(String, SqlType, Option<Expression>)>),
    SetVariable { name: String, value: Expression },
    Set(SetOption),
    Begin,
    Commit,
    Rollback,
    If { condition: Expression, then: Box<Statement>, otherwise: Option<Box<Statement>> },
    While { condition: Expression, body: Box<Statement> },
    Block(Vec<Statement>),
    Print(Expression),
    WaitFor(Expression),
    Throw { number: Expression, message: Expression },
    RaiseError(Expression),
    Use(String),
    Return,
    Execute { name: Name, arguments: Vec<(Option<String>, Expression)> },
    CreateSchema(String),
    CreateTable(CreateTable),
    CreateView { name: Name, columns: Vec<String>, text: String, replace: bool },
    CreateIndex { table: Name, key: KeyDefinition },
    CreateType { name: Name, sql_type: SqlType, nullable: bool },
    CreateLogin { name: String, password: Option<String> },
    CreateUser { name: String },
    AddRoleMember { role: String, member: String },
    SecurityPolicy { name: Name, targets: Vec<Name> },
    AlterTable { name: Name, change: AlterTable },
    AlterDatabase(AlterDatabase),
    DropTable { names: Vec<Name>, if_exists: bool },
    DropView { names: Vec<Name>, if_exists: bool },
    DropIndex { name: String, table: Name, if_exists: bool },
    Truncate(Name),
    Permission { grant: Grant, permissions: Vec<String>, on: Securable, to: Vec<String> },
}

/// One statement of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statement {
    pub(crate) line: u32,
    pub(crate) kind: Kind,
    /// Its text, for faults.
    pub(crate) text: String,
}
