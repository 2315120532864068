//! Where this program keeps what belongs to this machine and this user: the key of its tickets.

use std::path::PathBuf;

/// The user's state folder of lakegate: `$XDG_STATE_HOME/lakegate`, or `~/.local/state/lakegate`
/// (XDG Base Directory Specification). Nothing where the environment names neither; it is not made here.
pub fn state_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(base.join("lakegate"))
}
