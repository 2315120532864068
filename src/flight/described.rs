//! What the description of a result says beside its columns: what the result is, and how large it will be. Who has it
//! already gets no way to fetch it again; what is too large is refused before anything is computed.
//!
//! It stands in `FlightInfo.app_metadata` as JSON, which drivers that do not know it pass over:
//! `{"lakegate": 1, "identity": "…", "estimate": {…}}`, or `{"lakegate": 1, "identity": "…", "not_modified": true}`. A
//! result that grows with its table has a `basis` besides; who shows it later is sent the new rows alone, where the table
//! only gained rows since, with the identity of what they are `appended_to`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_flight::{FlightDescriptor, FlightInfo};
use bytes::Bytes;
use serde_json::json;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::delivery::{Basis, Identity, WireEstimate, few_words, result_schema};
use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::service::Service;
use crate::flight::statement::understand;
use crate::flight::status::{malformed, refuse};
use crate::model::WireProfile;
use crate::query::{Estimate, Planned, Statement, StatementKind};

/// Header that names identities of results a client has, with commas between.
pub(crate) const IF_NONE_MATCH: &str = "lakegate-if-none-match";
/// Header that shows what such results were made of, with commas between: new rows can be added to them.
pub(crate) const HAVE: &str = "lakegate-have";
/// Results that are looked at.
const MOST_NAMED: usize = 64;
/// The form of the metadata.
const FORM: u8 = 1;

/// What a client says of results it has.
#[derive(Debug, Default)]
pub(crate) struct Had {
    /// Their identities, of those it need not be sent if they are the same.
    identities: Vec<String>,
    /// What they were made of, of those it can add to.
    bases: Vec<String>,
}

impl Had {
    /// Reads it from a call's headers.
    pub(crate) fn read(headers: &MetadataMap) -> Self {
        Self { identities: named(headers, IF_NONE_MATCH), bases: named(headers, HAVE) }
    }
}

fn named(headers: &MetadataMap, header: &'static str) -> Vec<String> {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty());
    names.take(MOST_NAMED).map(str::to_owned).collect()
}

/// A result, described.
#[derive(Debug)]
pub(crate) struct Described {
    /// Its columns as they are sent.
    pub(crate) schema: SchemaRef,
    identity: Option<Identity>,
    basis: Option<Basis>,
    /// The result of the client's to which the rows that are sent are added; none where all are sent.
    appended_to: Option<Identity>,
    /// None where the statement is itself about an estimate.
    estimate: Option<WireEstimate>,
}

impl Described {
    /// Describes the result of a planned statement; returns also what is to be run, which reads new rows only where the
    /// client has the others.
    ///
    /// # Errors
    /// When it is too large, and the client does not have it yet.
    pub(crate) async fn of(
        service: &Service,
        caller: &Caller,
        mut planned: Planned,
        profile: WireProfile,
    ) -> Result<(Self, Planned), Status> {
        let schema = announced(service, &mut planned, profile).await;
        let identity = Identity::of(&planned, &schema, profile, &service.sealer);
        let basis = identity.as_ref().and_then(|own| own.basis(&planned, &schema, profile, &service.sealer));
        let mut described = Self { schema, identity, basis, appended_to: None, estimate: None };
        if described.is_had_by(caller) || planned.kind != StatementKind::Query {
            return Ok((described, planned));
        }
        let planned = match described.gained(service, caller, &planned.statement, profile).await {
            Some((before, gained)) => {
                described.appended_to = Some(before);
                gained
            }
            None => planned,
        };
        described.estimate = Some(look(service, caller, &planned, profile).await?.1);
        Ok((described, planned))
    }

    /// The statement over new rows only, and the client's result they are to be added to; none where there is none, or the
    /// table did not only gain rows since.
    async fn gained(
        &self,
        service: &Service,
        caller: &Caller,
        statement: &Statement,
        profile: WireProfile,
    ) -> Option<(Identity, Planned)> {
        let now = self.basis.as_ref()?;
        let had = caller.had.bases.iter().filter_map(|text| Basis::open(text, &service.sealer));
        let had = had.filter(|had| had.is_before(now)).max_by_key(|had| had.version)?;
        let mut statement = statement.clone();
        statement.options.since = [(had.table.clone(), had.version)].into();
        let _place = service.admission.enter(&caller.person()).await.ok()?;
        let gained = understand(service, caller, statement).await.ok()?;
        // The same columns are dictionaries as in the whole.
        let few = gained.statement.options.few.as_deref().unwrap_or_default();
        (result_schema(&gained.schema, profile, few) == self.schema).then_some((had.identity, gained))
    }

    /// Whether the client says that it has the result.
    pub(crate) fn is_had_by(&self, caller: &Caller) -> bool {
        self.identity.as_ref().is_some_and(|own| caller.had.identities.iter().any(|name| name == own.as_str()))
    }

    /// The answer to a client that has the result: its columns and no endpoint, and nothing of what was asked, which may
    /// be long.
    ///
    /// # Errors
    /// When the columns cannot be written.
    pub(crate) fn not_modified(&self) -> Result<FlightInfo, Status> {
        let info = FlightInfo::new().try_with_schema(&self.schema).map_err(|error| malformed(&error))?;
        let metadata = json!({ "lakegate": FORM, "identity": self.identity, "not_modified": true });
        // Some libraries take no description without a descriptor; that of the call may be long.
        let info = info.with_descriptor(FlightDescriptor::new_cmd(Bytes::new()));
        Ok(info.with_ordered(true).with_app_metadata(metadata.to_string()))
    }

    /// Adds to a description what is known of the result. Numbers go into Flight's own fields where clients can trust
    /// them: some show the number of rows as that of a result they have read.
    ///
    /// # Errors
    /// When there is no randomness to seal with.
    pub(crate) fn tell(&self, service: &Service, info: FlightInfo) -> Result<FlightInfo, Status> {
        let mut metadata = json!({
            "lakegate": FORM,
            "identity": self.identity,
            "estimate": self.estimate.as_ref().map(WireEstimate::to_json),
        });
        if let Some(basis) = &self.basis {
            metadata["basis"] = basis.seal(&service.sealer)?.into();
        }
        if let Some(before) = &self.appended_to {
            metadata["appended_to"] = before.as_str().into();
        }
        let info = info.with_app_metadata(metadata.to_string());
        let Some(estimate) = &self.estimate else { return Ok(info) };
        let number = |known: Option<u64>| known.and_then(|known| i64::try_from(known).ok()).unwrap_or(-1);
        let rows = estimate.rows.filter(|_| estimate.rows_exact);
        Ok(info.with_total_records(number(rows)).with_total_bytes(number(estimate.wire_bytes)))
    }
}

/// The columns of a planned statement's result as a client with `profile` gets them. Which of them are dictionaries is
/// decided here, once: the statement says so from then on.
pub(crate) async fn announced(service: &Service, planned: &mut Planned, profile: WireProfile) -> SchemaRef {
    if planned.kind != StatementKind::Query {
        return result_schema(&planned.schema, profile, &[]);
    }
    if profile.dictionaries && planned.statement.options.few.is_none() {
        let estimate = service.engine.estimate(planned).await;
        planned.statement.options.few = Some(few_words(&estimate));
    }
    result_schema(&planned.schema, profile, planned.statement.options.few.as_deref().unwrap_or_default())
}

/// How large the result of a planned statement will be, and how large on the line.
///
/// # Errors
/// When it is a query whose result is known to be too large.
pub(crate) async fn look(
    service: &Service,
    caller: &Caller,
    planned: &Planned,
    profile: WireProfile,
) -> Result<(Arc<Estimate>, WireEstimate), Status> {
    let estimate = service.engine.estimate(planned).await;
    let few = planned.statement.options.few.clone().unwrap_or_else(|| few_words(&estimate));
    let on_the_line = WireEstimate::new(&estimate, (profile, &few), &service.sizes, rate(service, caller));
    let is_limited = planned.kind == StatementKind::Query && !caller.person().is_admin;
    if let (Some(most), true) = (service.max_result_bytes, is_limited) {
        check(&on_the_line, most)?;
    }
    Ok((estimate, on_the_line))
}

/// Bytes a second that the caller's line carries for them now; none where it has no rate.
fn rate(service: &Service, caller: &Caller) -> Option<f64> {
    let bits = service.lines.prospect(caller.access.principal(), caller.address)?;
    Some(bits as f64 / 8.0)
}

fn check(estimate: &WireEstimate, most: u64) -> Result<(), Status> {
    let Some(bytes) = estimate.wire_bytes.filter(|bytes| *bytes > most) else { return Ok(()) };
    let heaviest: Vec<_> =
        estimate.heaviest().map(|(column, bytes)| format!("`{column}` ({})", megabytes(bytes))).collect();
    let message = format!(
        "the result would be about {} on the line, and no more than {} may be asked for in one statement \
         (`limits.max_result_bytes`); name the columns you need, for the heaviest are {}; or filter, aggregate, or take a \
         sample (TABLESAMPLE BERNOULLI (1) REPEATABLE (7)). EXPLAIN ESTIMATE tells the size of a query",
        megabytes(bytes),
        megabytes(most),
        heaviest.join(", ")
    );
    Err(refuse(ErrorKind::InvalidInput, message))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::delivery::ColumnBytes;

    #[test]
    fn identities_are_read_from_one_header_or_several() {
        let mut headers = MetadataMap::new();
        assert!(named(&headers, IF_NONE_MATCH).is_empty());
        headers.append(IF_NONE_MATCH, "a, b ,,c".parse().unwrap());
        headers.append(IF_NONE_MATCH, "d".parse().unwrap());
        assert_eq!(named(&headers, IF_NONE_MATCH), ["a", "b", "c", "d"]);
        headers.append(IF_NONE_MATCH, "x,".repeat(1000).parse().unwrap());
        assert_eq!(named(&headers, IF_NONE_MATCH).len(), MOST_NAMED);
    }

    #[test]
    fn what_is_too_large_is_refused_by_its_heaviest_columns_and_what_is_unknown_is_not() {
        let column = |name: &str, bytes| ColumnBytes { column: name.to_owned(), wire_bytes: Some(bytes) };
        let estimate = WireEstimate {
            rows: Some(1),
            wire_bytes: Some(3_000_000),
            columns: vec![column("picture", 2_500_000), column("id", 500_000)],
            ..WireEstimate::default()
        };
        assert!(check(&estimate, 3_000_000).is_ok() && check(&WireEstimate::default(), 0).is_ok());
        let refused = check(&estimate, 2_000_000).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let told = refused.message();
        assert!(told.contains("`picture` (2.5 MB), `id` (0.5 MB)") && told.contains("3.0 MB"), "{told}");
        assert!(told.contains("limits.max_result_bytes"), "{told}");
    }
}
