//! Rows of a table in some of its columns, with the order of their keys.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::error::ErrorKind;
use crate::lake::LakeError;
use crate::lake::schema::Conform;
use crate::lake::sort::KeyOrder;
use crate::model::TableName;
use std::sync::Arc;

/// Some of a table's columns, the key's among them; none of them must have a value.
#[derive(Clone)]
pub(super) struct Form {
    conform: Conform,
    order: KeyOrder,
}

impl Form {
    /// Those of the columns `schema`, ordered by `order`, that `wanted` says.
    ///
    /// # Errors
    /// When a column of the key is not among them.
    pub(super) fn of(
        table: &TableName,
        schema: &Schema,
        order: &KeyOrder,
        wanted: impl Fn(&Field) -> bool,
    ) -> Result<Self, LakeError> {
        let fields = schema.fields().iter().filter(|field| wanted(field));
        let some: SchemaRef = Arc::new(Schema::new(fields.map(|field| field.as_ref().clone()).collect::<Vec<_>>()));
        let order = order.over(schema, &some).ok_or_else(|| {
            LakeError::new(ErrorKind::Internal, format!("table {table}: a column of the key is not among the columns"))
        })?;
        Ok(Self { conform: Conform::new(table.clone(), nullable(&some)), order })
    }

    /// The columns.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(self.conform.schema())
    }

    /// Gives rows these columns.
    pub(super) fn conform(&self) -> &Conform {
        &self.conform
    }

    /// The order of rows in these columns.
    pub(super) fn order(&self) -> &KeyOrder {
        &self.order
    }

    /// The keys of rows in whatever columns, in the form keys compare by.
    ///
    /// # Errors
    /// When the values of a key are not of the table's types.
    pub(super) fn keys(&self, table: &TableName, rows: &RecordBatch) -> Result<Vec<ArrayRef>, LakeError> {
        let rows = self.conform.rows(rows)?;
        let what = || format!("cannot compare keys of table {table}");
        self.order.keys(&rows).map_err(|cause| LakeError::rows(what(), cause))
    }
}

/// The same columns, none of which must have a value.
pub(super) fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| Field::clone(field).with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
