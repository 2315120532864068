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
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

/// Puts a checked function in the place of operators that would wrap around.
#[derive(Debug)]
pub(crate) struct CheckedArithmetic {
    /// Whether every operand has its final type by now. Before that, what has no type yet is left as it is.
    pub(crate) types_are_settled: bool,
}

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let checked = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            // Nodes above know an aggregate or a window by its name, which may write out what is within it.
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                if !expr.exists(|inner| Ok(may_wrap(inner)))? {
                    return Ok(Transformed::no(expr));
                }
                let name = names.save(&expr);
                let checked = expr.transform_down(|inner| self.checked(inner, &schema))?;
                Ok(if checked.transformed { Transformed::yes(name.restore(checked.data)) } else { checked })
            })
        })?;
        Ok(checked.data)
    }
}

impl CheckedArithmetic {
    /// Takes `((a + b) - c) * d` as one function of four operands: sums may be thousands of operators long, and
    /// functions within functions are slow to plan and use up the stack. Operands of several types are left as they are.
    fn checked(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let count = match &expr {
            Expr::Negative(inner) if self.type_of(inner, schema)?.is_some_and(|found| found.is_signed_integer()) => 1,
            Expr::BinaryExpr(chain) => self.operators_of_whole_numbers(chain, schema)?,
            _ => 0,
        };
        if count == 0 {
            return Ok(Transformed::no(expr));
        }
        let written = expr.schema_name().to_string();
        let (mut operations, mut operands) = (Vec::new(), Vec::new());
        let mut rest = expr;
        for _ in 0..count {
            rest = match rest {
                Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                    operations.extend(Operation::of(op));
                    operands.push(*right);
                    *left
                }
                Expr::Negative(inner) => {
                    operations.push(Operation::Negate);
                    *inner
                }
                other => other,
            };
        }
        operands.push(rest);
        operations.reverse();
        operands.reverse();
        let signature = Signature::any(operands.len(), Volatility::Immutable);
        let function = Arc::new(ScalarUDF::from(Checked { operations, written, signature }));
        Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, operands))))
    }

    /// How many operators of a chain, counted from its end, have whole numbers of one type on both sides.
    fn operators_of_whole_numbers(&self, chain: &BinaryExpr, schema: &DFSchema) -> Result<usize> {
        if Operation::of(chain.op).is_none() {
            return Ok(0);
        }
        let wanted = self.type_of(&chain.right, schema)?;
        if !wanted.as_ref().is_some_and(DataType::is_integer) {
            return Ok(0);
        }
        let (mut count, mut left) = (1, chain.left.as_ref());
        while let Expr::BinaryExpr(BinaryExpr { left: next, op, right }) = left
            && Operation::of(*op).is_some()
            && self.type_of(right, schema)? == wanted
        {
            (count, left) = (count + 1, next);
        }
        // What is left may be made of another type, as the days between two dates are.
        Ok(if self.type_of(left, schema)? == wanted { count } else { 0 })
    }

    fn type_of(&self, expr: &Expr, schema: &DFSchema) -> Result<Option<DataType>> {
        match expr.get_type(schema) {
            Err(_) if !self.types_are_settled => Ok(None),
            found => found.map(Some),
        }
    }
}

fn may_wrap(expr: &Expr) -> bool {
    match expr {
        Expr::Negative(_) => true,
        Expr::BinaryExpr(BinaryExpr { op, .. }) => Operation::of(*op).is_some(),
        _ => false,
    }
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
