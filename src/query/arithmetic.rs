//! `+`, `-` and `*` of whole numbers that fail where the result does not fit its type. The engine's own wrap
//! around.

use std::sync::Arc;

use arrow::array::{ArrayRef, Datum};
use arrow::compute::kernels::numeric::{add, mul, neg, sub};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, cast,
};
use datafusion::optimizer::AnalyzerRule;

/// Puts a checked function in the place of operators that would wrap around.
#[derive(Debug)]
pub(crate) struct CheckedArithmetic {
    /// Whether every operand has its final type by now. Before that, what has no type yet is left as it is, and whole
    /// numbers of several types are brought to one here.
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
                let checked = self.within(expr, &schema)?;
                Ok(if checked.transformed { Transformed::yes(name.restore(checked.data)) } else { checked })
            })
        })?;
        Ok(checked.data)
    }
}

impl CheckedArithmetic {
    fn within(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        expr.transform_down(|inner| self.checked(inner, schema))
    }

    /// Takes `((a + b) - c) * d` as one function of four operands: sums may be thousands of operators long, and
    /// functions within functions are slow to plan and use up the stack. Each operand is asked for its type once: asking
    /// each operator for its own would ask all below it.
    fn checked(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        if !may_wrap(&expr) {
            return Ok(Transformed::no(expr));
        }
        let (first, steps) = taken_apart(expr);
        let mut chain = Chain { so_far: self.operand(first, schema)?, operations: Vec::new(), operands: Vec::new() };
        for step in steps {
            match step {
                Step::Negation => chain.negate(),
                Step::Operator(op, right) => {
                    let right = self.operand(right, schema)?;
                    chain.operate(op, right, self.types_are_settled)?;
                }
            }
        }
        chain.close();
        // What is within the operands was looked at on the way.
        Ok(Transformed::new(chain.so_far.expr, chain.so_far.is_changed, TreeNodeRecursion::Jump))
    }

    fn operand(&self, expr: Expr, schema: &DFSchema) -> Result<Operand> {
        let data_type = match expr.get_type(schema) {
            Err(_) if !self.types_are_settled => None,
            found => Some(found?),
        };
        let written = expr.schema_name().to_string();
        let within = self.within(expr, schema)?;
        Ok(Operand { expr: within.data, is_changed: within.transformed, data_type, written })
    }
}

/// Something that is computed with.
struct Operand {
    expr: Expr,
    /// Whether it is another expression than was written.
    is_changed: bool,
    /// None where it has none yet.
    data_type: Option<DataType>,
    /// The expression as the engine names it.
    written: String,
}

/// One operator of a chain, with what stands on its right.
enum Step {
    Operator(Operator, Expr),
    Negation,
}

/// What a chain of operators begins with on its left, and the operators in the order they are computed in.
fn taken_apart(mut chain: Expr) -> (Expr, Vec<Step>) {
    let mut steps = Vec::new();
    loop {
        chain = match chain {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if Operation::of(op).is_some() => {
                steps.push(Step::Operator(op, *right));
                *left
            }
            Expr::Negative(inner) => {
                steps.push(Step::Negation);
                *inner
            }
            first => {
                steps.reverse();
                return (first, steps);
            }
        };
    }
}

/// A chain of operators, as far as it is put together again.
struct Chain {
    /// What the open operations begin with. Its type and its name are those of all of them.
    so_far: Operand,
    /// Operations of whole numbers of one type that are not in a function yet.
    operations: Vec<Operation>,
    /// What stands on the right of each of them that has a right side.
    operands: Vec<Expr>,
}

impl Chain {
    fn negate(&mut self) {
        let written = format!("(- {})", self.so_far.written);
        if self.so_far.data_type.as_ref().is_some_and(DataType::is_signed_integer) {
            self.operations.push(Operation::Negate);
        } else {
            self.close();
            self.so_far.expr = Expr::Negative(Box::new(std::mem::take(&mut self.so_far.expr)));
        }
        self.so_far.written = written;
    }

    fn operate(&mut self, op: Operator, right: Operand, types_are_settled: bool) -> Result<()> {
        let (data_type, operation) = match (&self.so_far.data_type, &right.data_type) {
            (Some(left), Some(right)) => match whole_numbers(left, op, right) {
                Some(both) => (Some(both), Operation::of(op)),
                None => match BinaryTypeCoercer::new(left, &op, right).get_result_type() {
                    Err(_) if !types_are_settled => (None, None),
                    result => (Some(result?), None),
                },
            },
            _ => (None, None),
        };
        match (operation, &data_type) {
            (Some(operation), Some(both)) => {
                if self.so_far.data_type.as_ref() != Some(both) {
                    self.close();
                    self.so_far.expr = cast(std::mem::take(&mut self.so_far.expr), both.clone());
                }
                let same = right.data_type.as_ref() == Some(both);
                self.operations.push(operation);
                self.operands.push(if same { right.expr } else { cast(right.expr, both.clone()) });
            }
            _ => {
                self.close();
                let left = Box::new(std::mem::take(&mut self.so_far.expr));
                self.so_far.expr = Expr::BinaryExpr(BinaryExpr::new(left, op, Box::new(right.expr)));
                self.so_far.is_changed |= right.is_changed;
            }
        }
        self.so_far.data_type = data_type;
        self.so_far.written.push_str(&format!(" {op} {}", right.written));
        Ok(())
    }

    /// Puts the open operations into a function.
    fn close(&mut self) {
        if self.operations.is_empty() {
            return;
        }
        let operations = std::mem::take(&mut self.operations);
        let first = std::mem::take(&mut self.so_far.expr);
        let operands: Vec<Expr> = std::iter::once(first).chain(self.operands.drain(..)).collect();
        let signature = Signature::any(operands.len(), Volatility::Immutable);
        let written = self.so_far.written.clone();
        let function = Arc::new(ScalarUDF::from(Checked { operations, written, signature }));
        self.so_far.expr = Expr::ScalarFunction(ScalarFunction::new_udf(function, operands));
        self.so_far.is_changed = true;
    }
}

/// The type an operator of whole numbers computes in; none where it computes in something else.
fn whole_numbers(left: &DataType, op: Operator, right: &DataType) -> Option<DataType> {
    if !left.is_integer() || !right.is_integer() {
        return None;
    }
    if left == right {
        return Some(left.clone());
    }
    let (left, right) = BinaryTypeCoercer::new(left, &op, right).get_input_types().ok()?;
    (left == right && left.is_integer()).then_some(left)
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

/// Operators of whole numbers of one type, one after the other from the left; each but `Negate` takes another operand.
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use datafusion::logical_expr::LogicalPlanBuilder;

    use super::*;

    static ASKED: AtomicUsize = AtomicUsize::new(0);

    /// A value that counts how often it is asked for its type.
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Counting {
        data_type: DataType,
        signature: Signature,
    }

    impl ScalarUDFImpl for Counting {
        fn name(&self) -> &str {
            "counting"
        }

        fn signature(&self) -> &Signature {
            &self.signature
        }

        fn return_type(&self, _: &[DataType]) -> Result<DataType> {
            ASKED.fetch_add(1, Ordering::Relaxed);
            Ok(self.data_type.clone())
        }

        fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
            internal_err!("it is planned and not run")
        }
    }

    fn sum(operands: usize, types: &[DataType; 2]) -> LogicalPlan {
        let operand = |number: usize| {
            let data_type = types[number % 2].clone();
            ScalarUDF::from(Counting { data_type, signature: Signature::nullary(Volatility::Immutable) }).call(vec![])
        };
        let sum = (1..operands).map(operand).fold(operand(0), |sum, next| sum + next);
        LogicalPlanBuilder::empty(true).project([sum]).unwrap().build().unwrap()
    }

    #[test]
    fn each_operand_of_a_sum_of_several_types_is_asked_for_its_type_as_often_however_long_the_sum_is() {
        for other in [DataType::Int32, DataType::Float64, DataType::Int64] {
            for types_are_settled in [false, true] {
                let [short, long] = [100, 200].map(|operands| {
                    let plan = sum(operands, &[DataType::Int64, other.clone()]);
                    let before = ASKED.load(Ordering::Relaxed);
                    CheckedArithmetic { types_are_settled }.analyze(plan, &ConfigOptions::default()).unwrap();
                    ASKED.load(Ordering::Relaxed) - before
                });
                assert_eq!(long, 2 * short, "{other} {types_are_settled}");
            }
        }
        let mixed = sum(100, &[DataType::Int64, DataType::Int32]);
        let name = mixed.schema().field(0).name().clone();
        let rule = CheckedArithmetic { types_are_settled: false };
        let checked = rule.analyze(mixed, &ConfigOptions::default()).unwrap();
        let [sum]: [Expr; 1] = checked.expressions().try_into().unwrap();
        let Expr::ScalarFunction(function) = sum else { panic!("{checked}") };
        assert_eq!((function.args.len(), function.name()), (100, "checked_arithmetic"));
        assert_eq!(Expr::ScalarFunction(function).schema_name().to_string(), name);
    }
}
