//! Plans as text, without the places of the lake's files.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;

use crate::model::Location;
use crate::query::error::hide_places;

/// Takes folders of data files and the lake's own out of every text of a plan.
pub(crate) fn without_places(plan: SendableRecordBatchStream, lake: &Location) -> SendableRecordBatchStream {
    let place = lake.to_string();
    let roots = [place.clone(), place.trim_start_matches('/').to_owned()];
    let schema = plan.schema();
    let cleaned = plan.and_then(move |batch| std::future::ready(clean(&batch, &roots)));
    Box::pin(RecordBatchStreamAdapter::new(schema, cleaned))
}

fn clean(batch: &RecordBatch, roots: &[String]) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>().iter().map(|text| text.map(|text| clean_text(text, roots)));
            Arc::new(texts.collect::<StringArray>()) as ArrayRef
        }
        _ => Arc::clone(column),
    });
    Ok(RecordBatch::try_new(batch.schema(), columns.collect())?)
}

fn clean_text(text: &str, roots: &[String]) -> String {
    let mut text = hide_places(text);
    for root in roots.iter().filter(|root| root.len() > 1) {
        text = text.replace(root.as_str(), "lake");
    }
    text
}
