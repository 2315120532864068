//! Writing through SQL and ingestion: over real lakes, real servers and real processes.

mod faults;
mod flight;
mod ingest;
mod model;
mod place;
mod races;
mod rights;
mod small;
mod statements;
mod told;
mod values;
