//! A key's column in the form its values compare by.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewBuilder, GenericBinaryBuilder, GenericStringArray, GenericStringBuilder,
    OffsetSizeTrait, RecordBatch, StringViewBuilder,
};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;

use crate::model::KeyFolding;

/// How the values of a column of this type are folded; by value where there is nothing to fold in it.
pub(super) fn applicable(folding: KeyFolding, data_type: &DataType) -> KeyFolding {
    let fits = match folding {
        KeyFolding::Exact | KeyFolding::NotFoldable => false,
        KeyFolding::TrimZeros => {
            matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
        }
        KeyFolding::TrimBlanks | KeyFolding::Letters | KeyFolding::LettersWithoutCase => {
            matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        }
    };
    if fits { folding } else { KeyFolding::Exact }
}

/// The values of a column, folded; of the same type. What cannot be folded stays as it is.
///
/// # Errors
/// When the folded values of one batch are more than its type can hold.
pub(crate) fn fold(folding: KeyFolding, values: &ArrayRef) -> Result<ArrayRef> {
    if applicable(folding, values.data_type()) == KeyFolding::Exact {
        return Ok(Arc::clone(values));
    }
    Ok(match values.data_type() {
        DataType::Utf8 => texts::<i32>(folding, values)?,
        DataType::LargeUtf8 => texts::<i64>(folding, values)?,
        DataType::Utf8View => {
            let mut folded = StringViewBuilder::with_capacity(values.len());
            for value in values.as_string_view() {
                folded.append_option(value.map(|value| folding.fold(value)));
            }
            Arc::new(folded.finish())
        }
        DataType::Binary => bytes::<i32>(folding, values),
        DataType::LargeBinary => bytes::<i64>(folding, values),
        _ => {
            let mut folded = BinaryViewBuilder::with_capacity(values.len());
            for value in values.as_binary_view() {
                folded.append_option(value.map(|value| folding.fold_bytes(value)));
            }
            Arc::new(folded.finish())
        }
    })
}

fn texts<O: OffsetSizeTrait>(folding: KeyFolding, values: &ArrayRef) -> Result<ArrayRef> {
    let values = values.as_string::<O>();
    if values.is_ascii() {
        return ascii(folding, values);
    }
    let mut folded = GenericStringBuilder::<O>::with_capacity(values.len(), values.value_data().len());
    for value in values {
        folded.append_option(value.map(|value| folding.fold(value)));
    }
    Ok(Arc::new(folded.finish()))
}

/// As [`KeyFolding::fold`], for all values at once.
fn ascii<O: OffsetSizeTrait>(folding: KeyFolding, values: &GenericStringArray<O>) -> Result<ArrayRef> {
    let mut bytes = Vec::with_capacity(values.value_data().len());
    let mut lengths = Vec::with_capacity(values.len());
    for value in values {
        let value = value.unwrap_or_default().trim_end_matches(' ');
        bytes.extend_from_slice(value.as_bytes());
        lengths.push(value.len());
    }
    if folding == KeyFolding::LettersWithoutCase {
        bytes.make_ascii_uppercase();
    }
    let offsets = OffsetBuffer::<O>::from_lengths(lengths);
    let folded = GenericStringArray::<O>::try_new(offsets, Buffer::from_vec(bytes), values.nulls().cloned())?;
    Ok(Arc::new(folded))
}

fn bytes<O: OffsetSizeTrait>(folding: KeyFolding, values: &ArrayRef) -> ArrayRef {
    let values = values.as_binary::<O>();
    let mut folded = GenericBinaryBuilder::<O>::with_capacity(values.len(), values.value_data().len());
    for value in values {
        folded.append_option(value.map(|value| folding.fold_bytes(value)));
    }
    Arc::new(folded.finish())
}

/// Folds what another expression gives.
#[derive(Debug, Clone)]
pub(super) struct Folded {
    pub(super) of: Arc<dyn PhysicalExpr>,
    pub(super) folding: KeyFolding,
}

impl PartialEq for Folded {
    fn eq(&self, other: &Self) -> bool {
        self.folding == other.folding && self.of.eq(&other.of)
    }
}

impl Eq for Folded {}

impl Hash for Folded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.folding.hash(state);
        self.of.hash(state);
    }
}

impl fmt::Display for Folded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {:?}", self.of, self.folding)
    }
}

impl PhysicalExpr for Folded {
    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        self.of.return_field(input)
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<ColumnarValue> {
        let values = self.of.evaluate(rows)?.into_array(rows.num_rows())?;
        Ok(ColumnarValue::Array(fold(self.folding, &values)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.of]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let of = children.pop().ok_or_else(|| DataFusionError::Internal("nothing to fold".to_owned()))?;
        Ok(Arc::new(Self { of, folding: self.folding }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, Int32Array, StringArray};
    use arrow::compute::cast;

    use super::*;

    fn check(folding: KeyFolding, texts: &[Option<&str>]) {
        let values: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        let expected: Vec<Option<String>> =
            texts.iter().map(|text| text.map(|text| folding.fold(text).into_owned())).collect();
        for kind in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
            let folded = fold(folding, &cast(&values, &kind).unwrap()).unwrap();
            assert_eq!(folded.data_type(), &kind);
            let folded = cast(&folded, &DataType::Utf8).unwrap();
            let found: Vec<_> = folded.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
            assert_eq!(found, expected, "{folding:?} {kind}");
            // Of a slice only what it shows.
            let part = fold(folding, &cast(&values.slice(1, 2), &kind).unwrap()).unwrap();
            assert_eq!(cast(&part, &DataType::Utf8).unwrap().as_ref(), folded.slice(1, 2).as_ref());
        }
    }

    #[test]
    fn arrays_are_folded_value_by_value() {
        for folding in [
            KeyFolding::Exact,
            KeyFolding::TrimBlanks,
            KeyFolding::Letters,
            KeyFolding::LettersWithoutCase,
            KeyFolding::NotFoldable,
        ] {
            check(folding, &[Some("abC "), None, Some("  x  "), Some("   "), Some("")]);
            check(folding, &[Some("Ärger "), None, Some("σίσυφος"), Some("ASCII ")]);
        }
    }

    #[test]
    fn zeros_at_the_end_are_cut_and_other_types_stay() {
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![Some(&[1_u8, 0, 2, 0, 0][..]), None, Some(&[0])]));
        for kind in [DataType::Binary, DataType::LargeBinary, DataType::BinaryView] {
            let folded = fold(KeyFolding::TrimZeros, &cast(&bytes, &kind).unwrap()).unwrap();
            assert_eq!(folded.data_type(), &kind);
            let folded = cast(&folded, &DataType::Binary).unwrap();
            let expected = BinaryArray::from(vec![Some(&[1_u8, 0, 2][..]), None, Some(&[])]);
            assert_eq!(folded.as_ref(), &expected as &dyn Array);
        }
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        assert!(Arc::ptr_eq(&fold(KeyFolding::LettersWithoutCase, &numbers).unwrap(), &numbers));
    }
}
