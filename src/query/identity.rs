//! `current_user()` and `has_role('…')`: who asks, as SQL sees it.
//!
//! Both are made for one principal. Where they stand for something known they are folded into it before a plan is used,
//! so that the plan says itself for whom it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use crate::access::Principal;
use crate::query::naming::keep_names;

const CURRENT_USER: &str = "current_user";
const HAS_ROLE: &str = "has_role";

/// Makes the functions known to a state that is one principal's.
pub(crate) fn register(state: &mut SessionState, principal: &Principal) -> Result<()> {
    let name = CurrentUser { name: principal.name.clone(), signature: Signature::nullary(Volatility::Immutable) };
    let signature = Signature::exact(vec![DataType::Utf8], Volatility::Immutable);
    let role = HasRole { roles: principal.roles.clone(), signature };
    state.register_udf(Arc::new(ScalarUDF::from(name)))?;
    state.register_udf(Arc::new(ScalarUDF::from(role)))?;
    Ok(())
}

/// Whether a text may name one of the functions.
pub(crate) fn may_be_named(sql: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    sql.contains(CURRENT_USER) || sql.contains(HAS_ROLE)
}

/// Whether a function of this name is one of them.
pub(crate) fn is_named(function: &str) -> bool {
    matches!(function, CURRENT_USER | HAS_ROLE)
}

/// Puts what the functions give in their place, as far as a plan tells it.
pub(crate) fn fold_plan(plan: LogicalPlan, principal: &Principal) -> Result<LogicalPlan> {
    let folded = plan.transform_up_with_subqueries(|node| {
        let folded = keep_names(node, |expr| fold(expr, principal))?;
        if folded.transformed { folded.map_data(LogicalPlan::recompute_schema) } else { Ok(folded) }
    })?;
    Ok(folded.data)
}

/// The same for one expression.
pub(crate) fn fold(expr: Expr, principal: &Principal) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = &expr else { return Ok(Transformed::no(expr)) };
        let known = match (func.name(), args.as_slice()) {
            (CURRENT_USER, []) => Some(lit(principal.name.as_str())),
            (HAS_ROLE, [Expr::Literal(role, _)]) => match role.try_as_str() {
                Some(Some(role)) => Some(lit(principal.has_role(role))),
                Some(None) => Some(lit(ScalarValue::Boolean(None))),
                None => None,
            },
            _ => None,
        };
        Ok(known.map_or_else(|| Transformed::no(expr), Transformed::yes))
    })
}

/// The name of who asks.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CurrentUser {
    name: String,
    signature: Signature,
}

impl ScalarUDFImpl for CurrentUser {
    fn name(&self) -> &str {
        CURRENT_USER
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(self.name.clone()))))
    }
}

/// Whether who asks has a role.
#[derive(Debug, PartialEq, Eq, Hash)]
struct HasRole {
    roles: BTreeSet<String>,
    signature: Signature,
}

impl ScalarUDFImpl for HasRole {
    fn name(&self) -> &str {
        HAS_ROLE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let asked = arrays.iter().flat_map(|roles| roles.as_string::<i32>());
        let answers: BooleanArray = asked.map(|role| role.map(|role| self.roles.contains(role))).collect();
        match args.args.as_slice() {
            [ColumnarValue::Scalar(_)] => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&answers, 0)?)),
            _ => Ok(ColumnarValue::Array(Arc::new(answers))),
        }
    }
}
