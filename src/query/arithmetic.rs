//! `+`, `-` and `*` of whole numbers that fail where the result does not fit its type. The engine's own wrap
//! around.

use std::sync::Arc;

use arrow::array::{ArrayRef, Datum};
use arrow::compute::kernels::numeric::{add, mul, neg, sub};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

/// Puts a checked function in the place of operators that would wrap around. Runs after types were settled.
#[derive(Debug)]
pub(crate) struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let checked = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            node.map_expressions(|expr| expr.transform_down(|inner| checked(inner, &schema)))
        })?;
        Ok(checked.data)
    }
}

/// Takes `((a + b) - c) * d` as one function of four operands: sums may be thousands of operators long, and
/// functions within functions are slow to plan and use up the stack.
fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let whole = match &expr {
        Expr::Negative(inner) => inner.get_type(schema)?.is_integer(),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if Operation::of(*op).is_some() => {
            // Both sides have one type by now, and so has all of a chain. The shorter side is quicker to ask.
            let data_type = right.get_type(schema)?;
            data_type.is_integer() && first_of_chain(left).get_type(schema)? == data_type
        }
        _ => false,
    };
    if !whole {
        return Ok(Transformed::no(expr));
    }
    let written = expr.schema_name().to_string();
    let (mut operations, mut operands) = (Vec::new(), Vec::new());
    let mut rest = expr;
    loop {
        match rest {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if Operation::of(op).is_some() => {
                operations.extend(Operation::of(op));
                operands.push(*right);
                rest = *left;
            }
            Expr::Negative(inner) if operands.is_empty() => {
                operations.push(Operation::Negate);
                operands.push(*inner);
                break;
            }
            first => {
                operands.push(first);
                break;
            }
        }
    }
    operations.reverse();
    operands.reverse();
    let signature = Signature::any(operands.len(), Volatility::Immutable);
    let function = Arc::new(ScalarUDF::from(Checked { operations, written, signature }));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, operands))))
}

fn first_of_chain(mut expr: &Expr) -> &Expr {
    while let Expr::BinaryExpr(BinaryExpr { left, op, .. }) = expr
        && Operation::of(*op).is_some()
    {
        expr = left;
    }
    expr
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Negate,
}

impl Operation {
    fn of(op: Operator) -> Option<Self> {
        match op {
            Operator::Plus => Some(Self::Add),
            Operator::Minus => Some(Self::Subtract),
            Operator::Multiply => Some(Self::Multiply),
            _ => None,
        }
    }

    fn compute(self, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef> {
        let result = match self {
            Self::Add => add(left, right),
            Self::Subtract => sub(left, right),
            Self::Multiply => mul(left, right),
            Self::Negate => neg(left.get().0),
        };
        match result {
            Err(ArrowError::ArithmeticOverflow(text)) => {
                exec_err!("{text}; cast an operand to a wider type, such as decimal(38, 0)")
            }
            other => Ok(other?),
        }
    }
}

/// Operators of whole numbers, one after the other from the left: `Negate` alone, or one fewer than operands.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operations: Vec<Operation>,
    /// The expression as the engine names it, so that columns keep their names.
    written: String,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn display_name(&self, _operands: &[Expr]) -> Result<String> {
        Ok(self.written.clone())
    }

    fn schema_name(&self, _operands: &[Expr]) -> Result<String> {
        Ok(self.written.clone())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, operands: &[DataType]) -> Result<DataType> {
        match operands.first() {
            Some(data_type) => Ok(data_type.clone()),
            None => internal_err!("arithmetic without operands"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut operands = args.args.into_iter();
        let Some(mut result) = operands.next() else { return internal_err!("arithmetic without operands") };
        for operation in &self.operations {
            let right = if *operation == Operation::Negate { Some(result.clone()) } else { operands.next() };
            let Some(right) = right else { return internal_err!("{operation:?} without a second operand") };
            result = match (&result, &right) {
                (ColumnarValue::Scalar(left), ColumnarValue::Scalar(right)) => {
                    let scalar = operation.compute(&left.to_scalar()?, &right.to_scalar()?)?;
                    ColumnarValue::Scalar(ScalarValue::try_from_array(&scalar, 0)?)
                }
                (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) => {
                    ColumnarValue::Array(operation.compute(left, &right.to_scalar()?)?)
                }
                (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) => {
                    ColumnarValue::Array(operation.compute(&left.to_scalar()?, right)?)
                }
                (ColumnarValue::Array(left), ColumnarValue::Array(right)) => {
                    ColumnarValue::Array(operation.compute(left, right)?)
                }
            };
        }
        Ok(result)
    }
}
