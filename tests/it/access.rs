//! Who sees what: every call for every kind of principal, and attacks by name.

mod attacks;
mod errors;
mod matrix;
mod policies;
mod reload;
mod results;
mod tickets;
mod world;
