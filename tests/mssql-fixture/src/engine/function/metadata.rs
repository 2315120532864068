//! Functions that ask the server, the database or the catalogue.

use uuid::Uuid;

use super::{Context, SharedContext};
use crate::collation::Collation;
use crate::engine::ast::Name;
use crate::engine::catalog::{Scope, same};
use crate::engine::error::SqlError;
use crate::engine::parse;
use crate::value::Value;

fn text_of(value: Option<&Value>) -> Option<&str> {
    match value {
        Some(Value::Text(text)) => Some(text.trim_end()),
        _ => None,
    }
}

fn id_of(value: Option<&Value>) -> Option<i32> {
    match value {
        Some(Value::Int(number)) => i32::try_from(*number).ok(),
        _ => None,
    }
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn maybe_text(value: Option<&str>) -> Value {
    value.map_or(Value::Null, text)
}

fn number(value: i32) -> Value {
    Value::Int(i64::from(value))
}

pub(super) fn call(name: &str, values: &[Value], context: &SharedContext) -> Result<Value, SqlError> {
    let context = context.lock();
    let catalog = &context.catalog;
    Ok(match name {
        "DB_NAME" | "ORIGINAL_DB_NAME" => text(&catalog.database.name),
        "DB_ID" => match text_of(values.first()) {
            Some(asked) if !same(asked, &catalog.database.name) => Value::Null,
            _ => number(DATABASE_ID),
        },
        "OBJECT_ID" => object_id(&context, text_of(values.first())).map_or(Value::Null, number),
        "OBJECT_NAME" => {
            maybe_text(id_of(values.first()).and_then(|id| catalog.objects.get(&id)).map(|o| o.name.as_str()))
        }
        "OBJECT_SCHEMA_NAME" => maybe_text(
            id_of(values.first())
                .and_then(|id| catalog.objects.get(&id))
                .map(|object| catalog.schema_name(object.schema)),
        ),
        "SCHEMA_NAME" => match values.first() {
            None => text("dbo"),
            Some(_) => {
                maybe_text(id_of(values.first()).map(|id| catalog.schema_name(id)).filter(|name| !name.is_empty()))
            }
        },
        "TYPE_NAME" => {
            let id = id_of(values.first());
            let own = catalog.types.iter().find(|one| Some(one.id) == id).map(|one| one.name.as_str());
            maybe_text(own.or_else(|| id.and_then(crate::engine::views::type_name)))
        }
        "SCHEMA_ID" => {
            let name = text_of(values.first()).unwrap_or("dbo");
            catalog.schema(name).map_or(Value::Null, |schema| number(schema.id))
        }
        "SUSER_SNAME" | "SUSER_NAME" | "ORIGINAL_LOGIN" | "SYSTEM_USER" => text(&context.login),
        "USER_NAME" | "CURRENT_USER" => text(if same(&context.login, "sa") { "dbo" } else { &context.login }),
        "HOST_NAME" | "APP_NAME" => text("client"),
        "SERVERPROPERTY" => server_property(&context, text_of(values.first()).unwrap_or_default()),
        "DATABASEPROPERTYEX" => database_property(&context, text_of(values.first()), text_of(values.get(1))),
        "COLLATIONPROPERTY" => collation_property(text_of(values.first()), text_of(values.get(1))),
        "HAS_PERMS_BY_NAME" => {
            let permission = text_of(values.get(2)).unwrap_or_default();
            has_permission(&context, text_of(values.first()), text_of(values.get(1)), permission)
        }
        "IS_MEMBER" | "IS_ROLEMEMBER" | "IS_SRVROLEMEMBER" => {
            let role = text_of(values.first()).unwrap_or_default();
            let member = catalog.roles.iter().any(|(known, user)| same(known, role) && same(user, &context.login));
            number(i32::from(member || catalog.is_owner(&context.login)))
        }
        "FX_CAN_TRACK" => Value::Bit(id_of(values.first()).is_some_and(|id| can_track(&context, id))),
        "NEWID" | "NEWSEQUENTIALID" => Value::Guid(*Uuid::new_v4().as_bytes()),
        "RAND" => Value::Float(rand::random()),
        "MIN_ACTIVE_ROWVERSION" => Value::Bytes(context.shared.lowest_row_version().to_be_bytes().to_vec()),
        "@@DBTS" => Value::Bytes(context.shared.last_row_version().to_be_bytes().to_vec()),
        "@@IDENTITY" | "SCOPE_IDENTITY" => context
            .last_identity
            .map_or(Value::Null, |unscaled| Value::Decimal { unscaled: i128::from(unscaled), scale: 0 }),
        other => return Err(SqlError::internal(format!("the function {other} is not evaluated"))),
    })
}

/// The id of the one database; 1 to 4 are the system's.
pub(crate) const DATABASE_ID: i32 = 5;

fn object_id(context: &Context, asked: Option<&str>) -> Option<i32> {
    let name = parse::object_name(asked?).ok()?;
    if let Some(id) = crate::engine::views::id_of(&name) {
        return Some(id);
    }
    let object = context.catalog.object(&name)?;
    context.catalog.shows(&context.login, object).then_some(object.id)
}

/// Whether the login may ask for a table's changes: the tracking functions answer NULL otherwise.
fn can_track(context: &Context, id: i32) -> bool {
    let scope = Scope::Object(id);
    context.catalog.objects.get(&id).is_some_and(|object| object.tracking.is_some())
        && context.catalog.allows(&context.login, "SELECT", scope)
        && context.catalog.allows(&context.login, "VIEW CHANGE TRACKING", scope)
}

fn server_property(context: &Context, name: &str) -> Value {
    let options = &context.shared.options;
    let parts: Vec<&str> = options.product_version.split('.').collect();
    match name.to_ascii_lowercase().as_str() {
        "productversion" => text(&options.product_version),
        "productmajorversion" => maybe_text(parts.first().copied()),
        "productlevel" => text("RTM"),
        "edition" => text(&options.edition),
        "engineedition" => text(options.engine_edition.to_string()),
        "servername" | "machinename" | "computernamephysicalnetbios" => text("MSSQL-FIXTURE"),
        "collation" => text(context.catalog.database.collation.name()),
        "ishadrenabled" | "isclustered" | "isintegratedsecurityonly" => text("0"),
        _ => Value::Null,
    }
}

fn database_property(context: &Context, database: Option<&str>, name: Option<&str>) -> Value {
    let state = &context.catalog.database;
    if !database.is_some_and(|database| same(database, &state.name)) {
        return Value::Null;
    }
    let switch = |on: bool| text(if on { "1" } else { "0" });
    match name.unwrap_or_default().to_ascii_lowercase().as_str() {
        "updateability" => {
            let read_only = state.read_only || context.shared.is_secondary();
            text(if read_only { "READ_ONLY" } else { "READ_WRITE" })
        }
        "collation" => text(state.collation.name()),
        "status" => text("ONLINE"),
        "recovery" => text("FULL"),
        "useraccess" => text("MULTI_USER"),
        "isreadcommittedsnapshoton" => switch(state.read_committed_snapshot),
        "version" => text("957"),
        _ => Value::Null,
    }
}

fn collation_property(collation: Option<&str>, name: Option<&str>) -> Value {
    let Some(collation) = collation.and_then(Collation::parse) else { return Value::Null };
    match name.unwrap_or_default().to_ascii_lowercase().as_str() {
        "codepage" => text(collation.code_page().to_string()),
        "lcid" => text(collation.lcid().to_string()),
        "version" => text("0"),
        _ => Value::Null,
    }
}

/// HAS_PERMS_BY_NAME: 1, 0, or NULL when there is no such thing.
fn has_permission(context: &Context, securable: Option<&str>, class: Option<&str>, permission: &str) -> Value {
    let catalog = &context.catalog;
    let name: Option<Name> = securable.and_then(|text| parse::object_name(text).ok());
    let scope = match class.unwrap_or("SERVER").to_ascii_uppercase().as_str() {
        "OBJECT" => name.and_then(|name| catalog.object(&name)).map(|object| Scope::Object(object.id)),
        "SCHEMA" => name.and_then(|name| catalog.schema(name.last())).map(|schema| Scope::Schema(schema.id)),
        "DATABASE" => match name {
            Some(name) if !same(name.last(), &catalog.database.name) => None,
            _ => Some(Scope::Database),
        },
        "SERVER" => Some(Scope::Server),
        _ => None,
    };
    let permission = permission.to_ascii_uppercase();
    let allowed = |scope| match permission.as_str() {
        "ANY" => ["SELECT", "VIEW DEFINITION", "VIEW CHANGE TRACKING", "INSERT", "UPDATE", "DELETE"]
            .iter()
            .any(|permission| catalog.allows(&context.login, permission, scope)),
        // Everybody who could log in may connect.
        "CONNECT" | "CONNECT SQL" => true,
        permission => catalog.allows(&context.login, permission, scope),
    };
    scope.map_or(Value::Null, |scope| number(i32::from(allowed(scope))))
}
