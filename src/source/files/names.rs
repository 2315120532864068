//! Names of columns as files write them and as tables keep them.

/// A name a Delta table can have: the characters that Delta refuses without column mapping become `_`
/// (Delta protocol, "Column names"), and surrounding spaces go.
pub(super) fn clean(name: &str) -> String {
    name.trim().replace([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '\r', '='], "_")
}

/// What two names have in common that are one column: Delta tells names apart by more than case.
pub(super) fn fold(name: &str) -> String {
    clean(name).to_lowercase()
}
