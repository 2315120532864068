//! `TABLESAMPLE BERNOULLI (percent) REPEATABLE (seed)`: a share of a table's rows, the same rows each time.
//!
//! A row is in the sample when the hash of what names it is small enough: of its key, where the table has one that is
//! seen as it is, else of all values that are seen. Rows with the same key, or without a key with the same values,
//! go together. The hash knows seed, table and row, and nothing of files, partitions or batches. A sample stands above
//! what is sealed: it is drawn from the rows and values that may be seen.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::hash_utils::{QualityRandomState, create_hashes};
use datafusion::common::{Column, Result, TableReference};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::{
    TableSample, TableSampleMethod, TableSampleQuantity, TableSampleSeed, TableSampleUnit, Value,
};

use crate::model::TableName;
use crate::query::QueryError;
use crate::query::rewrite::number;

/// What is told to those who write another form.
const FORM: &str = "write TABLESAMPLE BERNOULLI (1) REPEATABLE (7) for one percent of the rows, the same each time";

/// Hashes of rows; any seed would do, and each release has to have the same.
const ROWS: QualityRandomState = QualityRandomState::with_seed(0);

/// The sample of a table a statement asks for, as it stands in the internal name `table@s…`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// From 0 to 100.
    percent: f64,
    seed: u64,
}

impl Sample {
    /// Reads the clause.
    ///
    /// # Errors
    /// Kind `Unsupported` for other forms, `InvalidInput` for a percentage or a seed that is none.
    pub(crate) fn asked(clause: &TableSample) -> Result<Self, QueryError> {
        let TableSample { modifier: _, name, quantity, seed, bucket, offset } = clause;
        match name {
            Some(TableSampleMethod::Bernoulli) => {}
            Some(other) => return Err(refused(&format!("TABLESAMPLE {other}"))),
            None => return Err(refused("TABLESAMPLE without a method")),
        }
        if bucket.is_some() || offset.is_some() {
            return Err(refused("TABLESAMPLE with BUCKET or OFFSET"));
        }
        let percent: f64 = match quantity {
            Some(TableSampleQuantity { parenthesized: _, value, unit: None | Some(TableSampleUnit::Percent) }) => {
                number(value).and_then(|text| text.parse().ok()).ok_or_else(|| {
                    QueryError::unsupported(format!(
                        "TABLESAMPLE takes a percentage written out, not `{value}`; {FORM}"
                    ))
                })?
            }
            _ => return Err(refused("TABLESAMPLE of a number of rows")),
        };
        if !(0.0..=100.0).contains(&percent) {
            return Err(QueryError::invalid(format!("TABLESAMPLE takes a percentage from 0 to 100, not {percent}")));
        }
        let Some(TableSampleSeed { modifier: _, value }) = seed else {
            return Err(QueryError::unsupported(format!(
                "TABLESAMPLE without REPEATABLE is not supported, for a result that is fetched again must be the same; {FORM}"
            )));
        };
        let whole: Option<u64> = match &value.value {
            Value::Number(text, _) => text.replace('_', "").parse().ok(),
            _ => None,
        };
        let seed = whole.ok_or_else(|| {
            QueryError::invalid(format!("REPEATABLE takes a whole number from 0 written out, not `{value}`"))
        })?;
        Ok(Self { percent, seed })
    }

    /// The internal name of a table's sample. People cannot write it: `rewrite` refuses `@`.
    pub(crate) fn internal_name(self, table: &str) -> String {
        format!("{table}@s{}r{}", self.percent, self.seed)
    }

    /// The name of what is sampled, and the sample asked for, from an internal name; none from another.
    fn from_internal_name(name: &str) -> Option<(&str, Self)> {
        let (table, sample) = name.rsplit_once('@')?;
        let (percent, seed) = sample.strip_prefix('s')?.split_once('r')?;
        Some((table, Self { percent: percent.parse().ok()?, seed: seed.parse().ok()? }))
    }

    /// What a reference names without its sample, and the sample.
    pub(crate) fn take(reference: TableReference) -> (TableReference, Option<Self>) {
        let Some((table, sample)) = Self::from_internal_name(reference.table()) else { return (reference, None) };
        let table: Arc<str> = table.into();
        let whole = match &reference {
            TableReference::Bare { .. } => TableReference::Bare { table },
            TableReference::Partial { schema, .. } => TableReference::Partial { schema: Arc::clone(schema), table },
            TableReference::Full { catalog, schema, .. } => {
                TableReference::Full { catalog: Arc::clone(catalog), schema: Arc::clone(schema), table }
            }
        };
        (whole, Some(sample))
    }

    /// The rows of `whole` that are in the sample of the table; `key` names a row, where it is not empty and all of it
    /// is there.
    ///
    /// # Errors
    /// When the plan cannot be built.
    pub(crate) fn of(
        self,
        table: &TableName,
        whole: Arc<dyn TableProvider>,
        key: &[String],
    ) -> Result<Arc<dyn TableProvider>, QueryError> {
        let schema = whole.schema();
        let is_named = !key.is_empty() && key.iter().all(|column| schema.index_of(column).is_ok());
        let columns: Vec<&String> =
            if is_named { key.iter().collect() } else { schema.fields().iter().map(|field| field.name()).collect() };
        let name = TableReference::partial(table.schema(), table.table());
        let identity = columns.into_iter().map(|column| Expr::Column(Column::new(Some(name.clone()), column)));
        let identity: Vec<Expr> = identity.collect();
        let function = ScalarUDF::from(InSample::new(self, table, identity.len()));
        let plan = LogicalPlanBuilder::scan(name, provider_as_source(whole), None)?
            .filter(function.call(identity))?
            .build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}

/// The share of rows that a predicate keeps that draws a sample; none of another one.
pub(crate) fn share(predicate: &Expr) -> Option<f64> {
    let Expr::ScalarFunction(call) = predicate else { return None };
    let drawn = call.func.inner().downcast_ref::<InSample>()?;
    Some(drawn.below as f64 / (1_u64 << 63) as f64)
}

fn refused(what: &str) -> QueryError {
    QueryError::unsupported(format!("{what} is not supported; {FORM}"))
}

/// Whether a row is in a sample; its arguments are what names the row.
#[derive(Debug, PartialEq, Eq, Hash)]
struct InSample {
    /// What tells the samples of other seeds and tables apart.
    salt: u64,
    /// Hashes below are in the sample; of 63 bits, so that all of them can be.
    below: u64,
    signature: Signature,
}

impl InSample {
    fn new(sample: Sample, table: &TableName, columns: usize) -> Self {
        let salt = blake3::hash(format!("{} {table}", sample.seed).as_bytes());
        let salt = std::array::from_fn(|place| salt.as_bytes()[place]);
        // The percentage is from 0 to 100: the product is from 0 to 2^63.
        let below = (sample.percent / 100.0 * (1_u64 << 63) as f64) as u64;
        let signature = Signature::any(columns, Volatility::Immutable);
        Self { salt: u64::from_le_bytes(salt), below, signature }
    }

    fn holds(&self, row: u64) -> bool {
        mixed(row ^ self.salt) >> 1 < self.below
    }
}

/// Spreads the bits of a number: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl ScalarUDFImpl for InSample {
    fn name(&self) -> &str {
        "in_sample"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let columns = args.args.iter().map(|column| column.to_array(rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let mut hashes = vec![0_u64; rows];
        create_hashes(&columns, &ROWS, &mut hashes)?;
        let held: BooleanArray = hashes.into_iter().map(|row| Some(self.holds(row))).collect();
        Ok(ColumnarValue::Array(Arc::new(held)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int64Array};
    use arrow::datatypes::Field;
    use datafusion::common::config::ConfigOptions;

    use super::*;

    const LAST: i64 = 100_000;

    fn sample(percent: f64, seed: u64) -> Sample {
        Sample { percent, seed }
    }

    /// Which of the numbers from `first` to before `last` are in a sample.
    fn held(sample: Sample, table: &str, first: i64, last: i64) -> Vec<i64> {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..last));
        let answer = InSample::new(sample, &table.parse().unwrap(), 1)
            .invoke_with_args(ScalarFunctionArgs {
                number_rows: numbers.len(),
                args: vec![ColumnarValue::Array(numbers)],
                arg_fields: vec![Arc::new(Field::new("id", DataType::Int64, false))],
                return_field: Arc::new(Field::new("held", DataType::Boolean, false)),
                config_options: Arc::new(ConfigOptions::default()),
            })
            .unwrap();
        let ColumnarValue::Array(answer) = answer else { panic!("one answer a row") };
        (first..last)
            .zip(answer.as_boolean().iter())
            .filter(|(_, held)| *held == Some(true))
            .map(|(number, _)| number)
            .collect()
    }

    #[test]
    fn a_sample_has_its_share_and_is_the_same_in_batches_of_any_size() {
        for (percent, least, most) in
            [(0.0, 0, 0), (1.0, 850, 1_150), (50.0, 49_000, 51_000), (100.0, 100_000, 100_000)]
        {
            let whole = held(sample(percent, 7), "t.a", 0, LAST);
            assert!((least..=most).contains(&whole.len()), "{percent}: {}", whole.len());
            let pieces =
                (0..10).flat_map(|piece| held(sample(percent, 7), "t.a", piece * 10_000, (piece + 1) * 10_000));
            assert_eq!(pieces.collect::<Vec<_>>(), whole);
        }
    }

    #[test]
    fn a_smaller_sample_is_part_of_a_larger_one_and_other_seeds_and_tables_have_others() {
        let ten = held(sample(10.0, 7), "t.a", 0, LAST);
        let one = held(sample(1.0, 7), "t.a", 0, LAST);
        assert!(one.iter().all(|number| ten.binary_search(number).is_ok()));
        for other in [held(sample(10.0, 8), "t.a", 0, LAST), held(sample(10.0, 7), "t.b", 0, LAST)] {
            let both = other.iter().filter(|number| ten.binary_search(number).is_ok()).count();
            assert!((800..=1_200).contains(&both), "{both} of {} rows are in two samples of a tenth", other.len());
        }
    }

    #[test]
    fn internal_names_are_read_as_they_were_written() {
        for asked in [sample(1.0, 7), sample(0.000_000_1, 0), sample(100.0, u64::MAX), sample(0.1, 3)] {
            for name in ["t", "t@v3", "T r@s"] {
                assert_eq!(Sample::from_internal_name(&asked.internal_name(name)), Some((name, asked)));
            }
        }
        for plain in ["t", "t@v3", "t@t1767225600000000"] {
            assert_eq!(Sample::from_internal_name(plain), None);
        }
        let (whole, found) = Sample::take(TableReference::partial("s", sample(1.0, 7).internal_name("t")));
        assert_eq!((whole, found), (TableReference::partial("s", "t"), Some(sample(1.0, 7))));
    }
}
