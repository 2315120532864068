//! `sum` that is exact or an error: whole numbers are added as decimals, whose range no table exceeds, and
//! the end has to fit the type that was promised. The engine's own wraps around.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
};

/// The aggregate and window function `sum`, with the types of the engine's own.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ExactSum {
    engine: Sum,
}

/// The type sums of type `sum` are computed in, where they could leave it unnoticed.
fn wide(sum: &DataType) -> Option<DataType> {
    match sum {
        DataType::Int64 | DataType::UInt64 => Some(DataType::Decimal128(38, 0)),
        DataType::Decimal128(38, scale) => Some(DataType::Decimal256(76, *scale)),
        _ => None,
    }
}

fn retyped(field: &FieldRef, data_type: &DataType) -> FieldRef {
    Field::clone(field).with_data_type(data_type.clone()).into()
}

/// The arguments as the engine's `sum` takes them for type `wide`.
fn widened<'a>(args: AccumulatorArgs<'a>, wide: &DataType, fields: &'a [FieldRef]) -> AccumulatorArgs<'a> {
    AccumulatorArgs { return_field: retyped(&args.return_field, wide), expr_fields: fields, ..args }
}

impl ExactSum {
    fn wrapped(
        &self,
        args: AccumulatorArgs,
        make: impl FnOnce(&Sum, AccumulatorArgs) -> Result<Box<dyn Accumulator>>,
    ) -> Result<Box<dyn Accumulator>> {
        let sum = args.return_type().clone();
        let Some(wide) = wide(&sum) else { return make(&self.engine, args) };
        let fields: Vec<FieldRef> = args.expr_fields.iter().map(|field| retyped(field, &wide)).collect();
        let inner = make(&self.engine, widened(args, &wide, &fields))?;
        Ok(Box::new(Exact { inner, types: Types { sum, wide } }))
    }
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.engine.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.wrapped(args, Sum::accumulator)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.wrapped(args, Sum::create_sliding_accumulator)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match wide(args.return_type()) {
            Some(wide) => {
                let return_field = retyped(&args.return_field, &wide);
                self.engine.state_fields(StateFieldsArgs { return_field, ..args })
            }
            None => self.engine.state_fields(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.engine.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let sum = args.return_type().clone();
        let Some(wide) = wide(&sum) else { return self.engine.create_groups_accumulator(args) };
        let fields: Vec<FieldRef> = args.expr_fields.iter().map(|field| retyped(field, &wide)).collect();
        let inner = self.engine.create_groups_accumulator(widened(args, &wide, &fields))?;
        Ok(Box::new(ExactGroups { inner, types: Types { sum, wide } }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.engine.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.engine.order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.engine.set_monotonicity(data_type)
    }
}

/// What goes in and out, and what is added up between.
#[derive(Debug)]
struct Types {
    sum: DataType,
    wide: DataType,
}

impl Types {
    fn widen(&self, values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        Ok(values.iter().map(|array| cast_with_options(array, &self.wide, &options)).collect::<Result<_, _>>()?)
    }

    fn narrow(&self, sums: &ArrayRef) -> Result<ArrayRef> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(sums, &self.sum, &options).map_err(|_| self.too_large())
    }

    fn too_large(&self) -> datafusion::error::DataFusionError {
        let (name, instead) = match &self.sum {
            DataType::Int64 => ("bigint".to_owned(), "sum(cast(… as decimal(38, 0))) has room for it"),
            DataType::UInt64 => ("an unsigned bigint".to_owned(), "sum(cast(… as decimal(38, 0))) has room for it"),
            other => (other.to_string(), "sum(cast(… as double)) has room for it, with 15 digits"),
        };
        exec_datafusion_err!("a sum does not fit {name}; {instead}")
    }
}

/// One sum.
#[derive(Debug)]
struct Exact {
    inner: Box<dyn Accumulator>,
    types: Types,
}

impl Accumulator for Exact {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&self.types.widen(values)?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.inner.evaluate()?;
        sum.cast_to(&self.types.sum).map_err(|_| self.types.too_large())
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(&self.types.widen(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

/// A sum for each group.
struct ExactGroups {
    inner: Box<dyn GroupsAccumulator>,
    types: Types,
}

impl GroupsAccumulator for ExactGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(&self.types.widen(values)?, groups, filter, total_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = self.inner.evaluate(emit_to)?;
        self.types.narrow(&sums)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.inner.merge_batch(values, groups, total_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&self.types.widen(values)?, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}
